"""What does backpropagation tell the weights of a neuron?

One neuron: two inputs, a weight for each, a bias, tanh. The bias is chosen so that the sum
s = x[0] w[0] + x[1] w[1] + b is ln 2, for then tanh(s) = (2 - 1/2) / (2 + 1/2) = 0.6 and its slope
1 - 0.6**2 = 0.64 can be found by hand. Look at how 0.64 goes back through the sum unchanged, to be
multiplied by x for w, and by w for x.
"""

import numpy as np

import microbn as mb

with mb.tracing() as trace:
    x = mb.Tensor([2.0, 0.5], requires_grad=True)
    w = mb.Tensor([-3.0, 1.0], requires_grad=True)
    b = mb.Tensor(5.5 + np.log(2), requires_grad=True)
    products = x * w
    total = np.sum(products)
    s = total + b
    out = np.tanh(s)

print("Forward")
print(f"  products = x * w = {products.data}")
print(f"  total    = -6 + 0.5 = {total.item():g}")
print(f"  s        = -5.5 + 5.5 + ln 2 = {s.item():.6f}")
print(f"  out      = tanh(ln 2) = {out.item():.6f}")

out.backward()

print("\nBackward: d s is short for the derivative of out with respect to s")
print(f"  d s        = 1 - out**2 = 1 - 0.36 = {s.grad:.6f}")
print(f"  d b        = d s = {b.grad:.6f}")
print(f"  d total    = d s = {total.grad:.6f}")
print(f"  d products = {products.grad.round(6)}, d total for each: a sum treats all alike")
print(f"  d w        = x * d products = [2 * 0.64, 0.5 * 0.64] = {w.grad.round(6)}")
print(f"  d x        = w * d products = [-3 * 0.64, 1 * 0.64] = {x.grad.round(6)}")

# What it is good for: a small step against the gradient makes out smaller, by a predictable amount.
rate = 0.01
w_new = w.data - rate * w.grad
out_new = np.tanh(np.sum(x.data * w_new) + b.data)
predicted = -rate * np.sum(w.grad**2)

print("\nA step: w_new = w - 0.01 * d w")
print(f"  w_new = [-3 - 0.0128, 1 - 0.0032] = {w_new.round(6)}")
print(f"  out should change by -0.01 * (1.28**2 + 0.32**2) = {predicted:.6f}")
print(f"  out does change by {out_new:.6f} - 0.6 = {out_new - out.data:.6f}")
near = np.tanh(np.sum(x.data * (w.data - 0.1 * rate * w.grad)) + b.data)
print("Not quite, as tanh is bent. With a tenth of the step the gap is a hundredth of what it was:")
print(f"  {0.1 * predicted:.8f} and {near - out.data:.8f}")

trace.save_html("02_neuron.html")
mb.draw(trace).save("02_neuron.svg")
print("\nWrote 02_neuron.html, a page to step through with the arrow keys,")
print("and 02_neuron.svg, the picture. Open either in a browser.")
