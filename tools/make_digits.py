"""Make microbn/data/digits.npz from scikit-learn's copy of the digits.

Run `python tools/make_digits.py` from the repository root with scikit-learn installed (1.7.2 was
used). Nothing in it is random and NumPy dates every member of a zip 1980-01-01, so a second run
writes the same bytes; another zlib may compress them differently, which changes no array.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

images, labels = load_digits(return_X_y=True)  # (1797, 64) floats 0.0 to 16.0, (1797,) ints

test = np.zeros(len(labels), dtype=bool)
for digit in range(10):
    test[np.flatnonzero(labels == digit)[4::5]] = True  # every fifth image of each class

np.savez_compressed(
    Path("microbn/data/digits.npz"),
    images=images.astype(np.uint8),
    labels=labels.astype(np.uint8),
    test=test,
)
