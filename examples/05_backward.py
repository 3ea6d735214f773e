"""By which routes does the gradient go back through batch norm?

x reaches x_hat directly, through the mean, and through the variance, which is computed from the
mean as well: four routes. A gradient is the sum of what comes back along all of them, so it can be
taken apart. One column is enough, for columns never meet: the cgpa of four students. eps is 1
here, so that std is sqrt(1.25 + 1) = 1.5, and every number can be found by hand. Look at the
fourth route, which is in every derivation and brings nothing, whatever the numbers are.
"""

import numpy as np

import microbn as mb
from microbn.graph.paths import along, paths, written

with mb.tracing() as trace:
    x = mb.Tensor([7.0, 8.0, 9.0, 6.0], requires_grad=True)
    mean = x.mean()
    centered = x - mean
    squared = centered**2
    var = squared.mean()
    var_eps = var + 1
    std = np.sqrt(var_eps)
    inv_std = std**-1
    x_hat = centered * inv_std

dx_hat = np.array([0.0, 0.0, 9.0, 0.0])  # the loss grows by 9 per unit of the third x_hat
x_hat.backward(dx_hat)

print(f"mean {mean.item()}, var {var.item()}, std {std.item()}, centered {centered.data}")
print(f"What comes in: d x_hat = {dx_hat}\n")

print("To var it gets through inv_std, std and var_eps:")
print(f"  d inv_std = sum(d x_hat * centered) = 9 * 1.5 = {inv_std.grad:.6g}")
print(f"  d std     = -d inv_std / std**2 = -13.5 / 2.25 = {std.grad:.6g}")
print(f"  d var     = d std / (2 * std) = -6 / 3 = {var.grad:.6g}\n")

print("To x it gets by four routes:")
routes = paths(x_hat, x)
parts = [along(route, dx_hat) for route in routes]
by_hand = [
    "d x_hat / std",
    "minus the average of the first, 6 / 4",
    "d var * 2 * centered / 4 = -1 * centered",
    "minus the average of the third",
]
for route, part, words in zip(routes, parts, by_hand, strict=True):
    print("  " + written(route).replace("→", "->"))  # for screens that lack the arrow
    print(f"    {part.round(6) + 0.0}  {words}")
print(f"Their sum  {sum(parts).round(6) + 0.0}")
print(f"x.grad     {x.grad.round(6) + 0.0}\n")

print("Why the fourth is zero: the third is a multiple of centered, and on the way to the mean")
print("it is added up; but deviations from their mean sum to zero, whatever comes in:")
print(f"  -0.5 + 0.5 + 1.5 - 1.5 = {centered.data.sum():g}")
print("microbn finds routes that bring nothing, null paths, with mb.check.null_paths(trace):")
print(f"  {mb.check.null_paths(trace)}\n".replace("→", "->"))

inv = 1 / np.sqrt(np.var(x.data) + 1)
formula = inv * (dx_hat - dx_hat.mean() - inv**2 * centered.data * (dx_hat * centered.data).mean())
print(f"The first three as one formula, in plain NumPy: {formula.round(6) + 0.0}\n")

by_mean, by_others = abs(parts[1] + parts[3]).sum(), abs(parts[0] + parts[2]).sum()
share = 100 * by_mean / (by_mean + by_others)
print("In the picture, the way through the mean and its share of d x, by size:")
print(
    f"  by the mean 4 * 1.5 = {by_mean:g}, by the two others 0.5 + 0.5 + 4.5 + 1.5 = {by_others:g}"
)
print(f"  of all, 6 + 7, that is {share:.1f} %")

trace.save_html("05_backward.html")
drawing = mb.draw(trace, backward=True, grad_output=dx_hat, highlight="x -> mean -> centered")
drawing.save("05_backward.svg")
print("\nWrote 05_backward.html, a page to step through with the arrow keys,")
print("and 05_backward.svg, the picture. Open either in a browser.")
