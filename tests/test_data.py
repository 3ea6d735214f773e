"""The shipped data: complete, as documented, and never shared between calls."""

import copy
import hashlib

import numpy as np
from numpy.testing import assert_array_equal

from microbn import data


def test_students_are_the_worked_table():
    features, labels, names, target = data.students()
    assert_array_equal(features, [[7, 70], [8, 80], [9, 90], [6, 60]])
    assert_array_equal(labels, [1, 0, 1, 0])
    assert names == ("cgpa", "iq")
    assert target == "placed"
    assert (features.dtype, labels.dtype) == (np.float64, np.int64)


def test_digits_have_the_documented_shapes_dtypes_and_range():
    digits = data.digits()
    assert [a.shape for a in digits] == [(1442, 64), (1442,), (355, 64), (355,)]
    assert [a.dtype for a in digits] == [np.float32, np.int64, np.float32, np.int64]
    for x in (digits.x_train, digits.x_test):
        assert (x.min(), x.max()) == (0.0, 1.0)
        assert_array_equal(x * 16, np.round(x * 16))  # nothing but sixteenths


def test_digits_are_stratified():
    digits = data.digits()
    train, test = np.bincount(digits.y_train), np.bincount(digits.y_test)
    # 1,797 images in all
    assert_array_equal(train + test, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    assert_array_equal(test, (train + test) // 5)


def test_digits_are_disjoint_and_complete():
    digits = data.digits()
    train = {row.tobytes() for row in digits.x_train}
    test = {row.tobytes() for row in digits.x_test}
    assert train.isdisjoint(test)
    assert len(train | test) == 1797  # no image occurs twice in the original


def test_digits_have_not_changed():
    digest = hashlib.sha256()
    for array in data.digits():
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    assert digest.hexdigest() == "4e1325d038813314ead2a30970b4ad8eed6ef36a845f57a2129b3ece33899fd1"


def test_each_call_returns_fresh_writable_arrays():
    for load in (data.students, data.digits):
        before = copy.deepcopy(load())
        for array in load():
            if isinstance(array, np.ndarray):
                array[...] = 9
        for array, again in zip(before, load(), strict=True):
            assert_array_equal(array, again)
