"""What is a second derivative, and what is it good for?

mb.grad(..., create_graph=True) records how it computed the gradient, so that the gradient can be
differentiated like any other result. First for f(x) = x**3 - 12 * x, where f' = 3 * x**2 - 12 and
f'' = 6 * x can be found by hand, and where Newton's method finds the minimum, 2, in a few steps.
Then for batch norm. Look at H, its Hessian, the table of all second derivatives: it is symmetric,
and its rows sum to zero, for a shift of all students changes nothing, not even the gradient.

The page steps through slope alone. There d f = 1 is where the gradient of f has started, and d(...)
is the derivative of slope.
"""

import numpy as np

import microbn as mb

with mb.tracing() as trace:
    x = mb.Tensor(4.0, requires_grad=True)
    f = x**3 - 12 * x
    slope = mb.grad(f, x, create_graph=True)
trace.output = slope
slope.backward()

print("1. f(x) = x**3 - 12 * x at x = 4")
print(f"f   = 64 - 48 = {f.item():g}")
print(f"f'  = 3 * 16 - 12 = {slope.item():g}")
print(f"f'' = 6 * 4 = {x.grad:g}")

print("\n2. Newton's method: where f' would be zero if it were straight, at x - f' / f''")
print("   by hand x - (3 * x**2 - 12) / (6 * x) = (x + 4 / x) / 2")
at = 4.0
for _ in range(5):
    here = mb.Tensor(at, requires_grad=True)
    first = mb.grad(here**3 - 12 * here, here, create_graph=True)
    second = mb.grad(first, here)
    by_hand = (at + 4 / at) / 2
    at -= first.item() / second.item()
    print(f"   f' {first.item():12.9f}  f'' {second.item():12.9f}  next x {at:.9f}", end="")
    print(f"  by hand {by_hand:.9f}")


def gradient(students):
    """Return d loss / d students as in 05_backward.py; 54 makes it all whole numbers."""
    centered = students - np.mean(students)
    x_hat = centered / np.sqrt(np.mean(centered**2) + 1)
    loss = np.sum(x_hat * [0, 0, 54, 0])
    return mb.grad(loss, students, create_graph=True)


cgpa = np.array([7.0, 8.0, 9.0, 6.0])
v = np.array([1.0, 2.0, 0.0, -1.0])
h = 0.001
ahead = gradient(mb.Tensor(cgpa + h * v, requires_grad=True))
behind = gradient(mb.Tensor(cgpa - h * v, requires_grad=True))
difference = (ahead.data - behind.data) / (2 * h)

students = mb.Tensor(cgpa, requires_grad=True)
g = gradient(students)
g.backward(v)  # the gradients of all entries of g, weighted by v and summed: H v
hessian = np.array([mb.grad(g, students, unit).data for unit in np.eye(4)])

print("\n3. Batch norm: how does the gradient change when the students move along v?")
print(f"g    {g.data.round(6) + 0.0}, six times that of 05_backward.py")
print(f"v    {v}")
print(f"H v  {students.grad.round(6) + 0.0}, by g.backward(v)")
print(f"     {difference.round(6) + 0.0}, by (g at x + 0.001 v, minus g at x - 0.001 v) / 0.002")
print(f"H, a row for each entry of g\n{hessian.round(6) + 0.0}")
print(f"The sums of its rows are {hessian.sum(axis=1).round(6) + 0.0}, by hand 0")
print(f"The first entry of H v is -5 * 1 + 1 * 2 + 3 * 0 + 1 * -1 = {hessian[0] @ v:g}")

trace.save_html("07_second_derivative.html")
mb.draw(trace).save("07_second_derivative.svg")
print("\nWrote 07_second_derivative.html, a page to step through with the arrow keys,")
print("and 07_second_derivative.svg, the picture. Open either in a browser.")
