"""What is a gradient, and how does a program find it?

A program of three operations on plain numbers. Going forward, each line computes a value. Going
backward, each line answers: by how much does the loss change when this value changes a little?
Look at p: two lines read it, so two answers come back to it, and they are added.
"""

import microbn as mb

with mb.tracing() as trace:  # takes down each line, for the page and the picture
    a = mb.Tensor(2.0, requires_grad=True)
    b = mb.Tensor(-3.0, requires_grad=True)
    p = a * b
    s = p + 10
    loss = s * p

print("Forward")
print(f"  p    = a * b  = 2 * -3 = {p.item():g}")
print(f"  s    = p + 10 = -6 + 10 = {s.item():g}")
print(f"  loss = s * p  = 4 * -6 = {loss.item():g}")

loss.backward()  # fills .grad of everything above

print("\nBackward: d p is short for the derivative of the loss with respect to p")
print(f"  d loss = {loss.grad:g}, where it starts")
print(f"  d s    = p * d loss = -6 * 1 = {s.grad:g}")
print(f"  d p    = s * d loss + d s = 4 * 1 + -6 = {p.grad:g}, for p was read by loss and by s")
print(f"  d a    = b * d p = -3 * -2 = {a.grad:g}")
print(f"  d b    = a * d p = 2 * -2 = {b.grad:g}")


def program(a, b):
    """Compute the same loss from two plain numbers."""
    p = a * b
    return (p + 10) * p


h = 0.001
slope_a = (program(2 + h, -3) - program(2 - h, -3)) / (2 * h)
slope_b = (program(2, -3 + h) - program(2, -3 - h)) / (2 * h)

print("\nIs that so? Move a by 0.001 up and down, and divide what the loss does by 0.002; then b")
print(f"  a: ({program(2 + h, -3):.6f} - {program(2 - h, -3):.6f}) / 0.002 = {slope_a:.6f}")
print(f"  b: ({program(2, -3 + h):.6f} - {program(2, -3 - h):.6f}) / 0.002 = {slope_b:.6f}")

trace.save_html("01_scalar.html")
mb.draw(trace).save("01_scalar.svg")
print("\nWrote 01_scalar.html, a page to step through with the arrow keys,")
print("and 01_scalar.svg, the picture. Open either in a browser.")
