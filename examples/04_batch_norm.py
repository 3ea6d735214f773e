"""What does batch norm compute?

Four students, of whom we know cgpa, the average of their grades, and iq: a batch of 4 examples with
2 features. Batch norm is eight lines of NumPy, composed of mean, -, **, +, sqrt and *. Look at
x_hat: the columns of x differ tenfold, those of x_hat hardly at all. Then gamma and beta set anew
how wide each column is and where it lies. The variance of x_hat is not quite 1, for eps, which
keeps us from dividing by 0, takes a little of it.
"""

import numpy as np

import microbn as mb

eps = 1e-5
with mb.tracing() as trace:
    x = mb.Tensor([[7.0, 70.0], [8.0, 80.0], [9.0, 90.0], [6.0, 60.0]], requires_grad=True)
    gamma = mb.nn.Parameter(np.array([1.0, 2.0]))  # parameters: learned, as weights are
    beta = mb.nn.Parameter(np.array([0.0, 3.0]))

    mean = x.mean(axis=0)  # of each column
    centered = x - mean
    squared = centered**2
    var = squared.mean(axis=0)  # divides by 4, not by 3
    std = np.sqrt(var + eps)
    inv_std = std**-1
    x_hat = centered * inv_std
    y = x_hat * gamma + beta

print(f"x: a row is a student, the columns are cgpa and iq\n{x.data}")
print(f"mean = [(7 + 8 + 9 + 6) / 4, (70 + 80 + 90 + 60) / 4] = {mean.data}")
print(f"centered = x - mean\n{centered.data}")
print(f"var = [(0.25 + 0.25 + 2.25 + 2.25) / 4, 100 times that] = {var.data}")
print(f"std = [sqrt(1.25001), sqrt(125.00001)] = {std.data.round(6)}")
print("x_hat = centered / std, where -0.5 / 1.118 is -0.447, and 1.5 / 1.118 is 1.342")
print(x_hat.data.round(6))
print(f"y = [1, 2] * x_hat + [0, 3]\n{y.data.round(6)}")

print("\nThe columns of x_hat and y")
print(f"mean of x_hat  {x_hat.data.mean(axis=0).round(6) + 0.0}  by hand 0")
print(f"its variance   [{x_hat.data[:, 0].var():.8f} {x_hat.data[:, 1].var():.8f}]", end="")
print(f"  by hand [{1.25 / 1.25001:.8f} {125 / 125.00001:.8f}], which is var / (var + eps)")
print(f"mean of y      {y.data.mean(axis=0).round(6) + 0.0}  by hand beta")
print(f"its std        {y.data.std(axis=0).round(6)}  by hand gamma, but for eps")

ready_made = mb.batch_norm(x.data, gamma.data, beta.data, eps=eps)
print("\nmb.batch_norm gives the same, to the last bit:", np.array_equal(ready_made, y.data))

mb.draw(trace).save("04_batch_norm.svg")
# The page needs some gradient to go back with; 05_backward.py explains the way, by easier numbers.
y.backward(np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [0.5, 1.0]]))
trace.save_html("04_batch_norm.html")
print("\nWrote 04_batch_norm.html, a page to step through with the arrow keys,")
print("and 04_batch_norm.svg, the picture. Open either in a browser.")
