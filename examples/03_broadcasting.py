"""Why is the gradient of a bias a sum over the batch?

A batch of three examples with two features each. w and b have one entry per feature, and NumPy
repeats them for every example; importance has one entry per example, and is repeated for every
feature. Look at the shapes: a gradient has the shape of its value, so wherever a value was
repeated, what comes back has to be summed: over the rows for w and b, over the columns for
importance. The last lines show that this is no convention: it is what the loss does.
"""

import numpy as np

import microbn as mb

with mb.tracing() as trace:
    x = mb.Tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])  # (3, 2): examples in rows
    w = mb.Tensor([10.0, 20.0], requires_grad=True)  # (2,): repeated for 3 examples
    b = mb.Tensor([1.0, 2.0], requires_grad=True)  # (2,): repeated for 3 examples
    importance = mb.Tensor([[1.0], [2.0], [4.0]], requires_grad=True)  # (3, 1): for 2 features
    scaled = x * w
    y = scaled + b
    weighted = y * importance
    loss = np.sum(weighted)

print("Forward")
print(f"y = x * w + b\n{y.data}")
print(f"weighted = y * importance\n{weighted.data}")
print(f"loss = 11 + 42 + 62 + 164 + 204 + 488 = {loss.item():g}")

loss.backward()

print("\nBackward")
print(f"d y: each row is the importance of its example\n{y.grad}")
print(f"d b = d y, summed over the 3 rows = [1 + 2 + 4, 1 + 2 + 4] = {b.grad}")
print("d w = x * d y, summed over the 3 rows")
print(f"    = [1*1 + 3*2 + 5*4, 2*1 + 4*2 + 6*4] = {w.grad}")
print("d importance = y * d weighted, summed over the 2 columns")
print(f"    = [[11 + 42], [31 + 82], [51 + 122]] =\n{importance.grad}")
for name, value in {"w": w, "b": b, "importance": importance}.items():
    print(f"{name} has shape {value.shape}, d {name} has shape {value.grad.shape}")

# The same in plain NumPy, with the first entry of b larger by 1.
b_new = b.data + np.array([1.0, 0.0])
y_new = x.data * w.data + b_new
loss_new = np.sum(y_new * importance.data)

print("\nIs that so? Make b[0] larger by 1, and see what changes")
print(f"in y: one entry of each example, for all share b[0]\n{y_new - y.data}")
print(f"in the loss: {loss_new:g} - {loss.item():g} = {loss_new - loss.item():g}, which is d b[0]")

trace.save_html("03_broadcasting.html")
mb.draw(trace, backward=True).save("03_broadcasting.svg")
print("\nWrote 03_broadcasting.html, a page to step through with the arrow keys,")
print("and 03_broadcasting.svg, the picture. Open either in a browser.")
