"""Is the backward pass that I derived by hand right, and if not, where is it wrong?

The numbers of 05_backward.py again, now with gamma = 9 and beta = 1 after x_hat. A derivation
stage by stage is compared with microbn's, then three published forms, then the derivation with a
mistake. Look at the verdicts: of all that the mistake makes wrong, "origin" is where it was made.
And look at d mean, which stays right: of what comes through var nothing gets to the mean.
"""

from functools import partial

import numpy as np

import microbn as mb

forward = partial(mb.batch_norm, eps=1.0)
with mb.tracing() as trace:
    x = mb.Tensor([[7.0], [8.0], [9.0], [6.0]], requires_grad=True)  # 4 examples, 1 feature
    gamma = mb.nn.Parameter(np.array([9.0]))
    beta = mb.nn.Parameter(np.array([1.0]))
    y = forward(x, gamma, beta)

dy = np.array([[0.0], [0.0], [1.0], [0.0]])  # times gamma it is what came in there: [0, 0, 9, 0]
y.backward(dy)


def by_hand(two=2):
    """Go back from y; return the gradient of each stage by its name."""
    m = 4
    centered = x.data - x.data.mean(axis=0)
    std = np.sqrt((centered**2).mean(axis=0) + 1.0)
    x_hat = centered / std

    d = {"scaled": dy, "beta": dy.sum(axis=0)}  # y = scaled + beta
    d["x_hat"] = d["scaled"] * gamma.data  # scaled = x_hat * gamma
    d["gamma"] = (d["scaled"] * x_hat).sum(axis=0)  # the same line, its other factor
    d["inv_std"] = (d["x_hat"] * centered).sum(axis=0)  # x_hat = centered * inv_std
    d["std"] = -d["inv_std"] / std**2  # inv_std = 1 / std
    d["var_eps"] = d["std"] / (two * std)  # std = sqrt(var_eps)
    d["var"] = d["var_eps"]  # var_eps = var + 1
    d["squared"] = np.broadcast_to(d["var"] / m, (m, 1))  # var = mean of squared
    d["centered"] = d["x_hat"] / std + d["squared"] * 2 * centered  # x_hat, squared = centered**2
    d["mean"] = -d["centered"].sum(axis=0)  # centered = x - mean
    d["x"] = d["centered"] + d["mean"] / m  # centered and mean
    return d


print("1. Each stage by hand (found), beside microbn's (expected), at the entry that differs most")
stages = by_hand()
print(mb.check.compare(trace, stages, grad_output=dy))

print("\n2. The gradients in all forms; d x should be [-1, -2, 3, 0], as in 05_backward.py")
_, cache = mb.handwritten.forward(x.data, gamma.data, beta.data, eps=1.0)
gradients = {
    "microbn": (x.grad, gamma.grad, beta.grad),
    "above": (stages["x"], stages["gamma"], stages["beta"]),
    "staged": mb.handwritten.backward_staged(dy, cache),
    "paper": mb.handwritten.backward_paper(dy, cache),
    "closed": mb.handwritten.backward_closed(dy, cache),
}
for name, (dx, dgamma, dbeta) in gradients.items():
    numbers = dx.ravel().round(6) + 0.0
    print(f"{name:8} d x {numbers}, d gamma {dgamma.round(6)}, d beta {dbeta.round(6)}")

print("\n3. The 2 is forgotten in d sqrt(var_eps) = 1 / (2 * std)")
wrong = by_hand(two=1)
print(mb.check.compare(trace, wrong, grad_output=dy))

print("\nThe same from d x alone, which cannot tell faults in series from one another")
inputs = x.data, gamma.data, beta.data
print(mb.check.diagnose(forward, inputs, wrong["x"], wrt="x", grad_output=dy))

trace.save_html("06_by_hand.html")
mb.draw(trace).save("06_by_hand.svg")
print("\nWrote 06_by_hand.html, a page to step through with the arrow keys,")
print("and 06_by_hand.svg, the picture. Open either in a browser.")
