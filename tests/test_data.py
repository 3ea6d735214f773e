"""The shipped data: complete, as documented, never shared between calls; batches and splits."""

import copy
import hashlib
import warnings
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import microbn as mb
from microbn import data
from microbn.data import batches, split


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


# Batches ------------------------------------------------------------------------------------------


@given(
    rows=st.integers(2, 40),
    size=st.integers(2, 50),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_row_comes_once_with_what_belongs_to_it(rows, size, shuffle, drop_last, seed):
    if drop_last and size > rows:
        return
    x, y = np.arange(3 * rows).reshape(rows, 3), np.arange(rows).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader = batches(x, y, batch_size=size, shuffle=shuffle, drop_last=drop_last, rng=seed)
    epoch = list(loader)
    sizes = [size] * (rows // size) + ([] if drop_last else [rows % size] * (rows % size > 0))
    assert [len(b) for _, b in epoch] == [len(a) for a, _ in epoch] == sizes
    assert len(loader) == len(sizes)
    seen = np.concatenate([b for _, b in epoch])
    assert_array_equal(np.concatenate([a for a, _ in epoch]), x[seen.astype(int)])
    assert seen.dtype == np.float32
    if not shuffle:
        assert_array_equal(seen, y[: len(seen)])
    assert len(set(seen)) == len(seen) == (rows - rows % size if drop_last else rows)


def orders(loader, epochs=3):
    return [[row for (b,) in loader for row in b.tolist()] for _ in range(epochs)]


def test_each_epoch_has_an_order_of_its_own_and_a_seed_brings_them_all_back():
    x = np.arange(20)
    first = orders(batches(x, batch_size=8, rng=0))
    assert first == orders(batches(x, batch_size=8, rng=0))
    assert first == orders(batches(x, batch_size=8, rng=np.random.default_rng(0)))
    assert first != orders(batches(x, batch_size=8, rng=1))
    assert len({tuple(order) for order in [*first, x.tolist()]}) == 4
    assert orders(batches(x, batch_size=8, shuffle=False)) == [x.tolist()] * 3


def test_every_order_is_as_likely_as_another():
    loader = batches(np.arange(3), rng=0)
    counts = Counter(tuple(b) for _ in range(6000) for (b,) in loader)
    assert len(counts) == 6
    assert all(abs(n - 1000) < 6 * np.sqrt(1000) for n in counts.values())


def test_two_passes_at_once_do_not_disturb_each_other():
    loader = batches(np.arange(12), batch_size=4, rng=0)
    together = list(zip(loader, loader, strict=True))
    again = batches(np.arange(12), batch_size=4, rng=0)
    for (one, two), (same,) in zip(together, again, strict=True):
        assert_array_equal(one[0], same)
        assert not np.array_equal(one, two)
    for (_, two), (same,) in zip(together, again, strict=True):
        assert_array_equal(two[0], same)


@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_share_nothing_with_the_arrays(shuffle):
    x = np.arange(4.0)
    for (b,) in batches(x, batch_size=2, shuffle=shuffle):
        b[:] = 100
    assert_array_equal(x, np.arange(4))


def test_lists_become_arrays_and_tensors_stay_tensors():
    x = mb.Tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
    (((a, b, c),)) = batches(x, [1, 2, 3], np.array(["a", "b", "c"]), shuffle=False)
    assert type(b) is type(c) is np.ndarray
    (a * 2).sum().backward()
    assert_array_equal(x.grad, np.full((3, 2), 2))


def test_a_last_batch_of_one_row_is_announced_once():
    with pytest.warns(UserWarning, match="last of 3 batches has one row.*drop_last=True") as found:
        loader = batches(np.arange(9), batch_size=4)
    assert len(found) == 1
    assert found[0].filename == __file__
    assert [len(b) for (b,) in loader] == [4, 4, 1]  # pytest makes a second warning an error
    batches(np.arange(9), batch_size=4, drop_last=True)
    batches(np.arange(9), batch_size=1)  # asked for
    batches(np.arange(1))


def test_a_network_with_batch_norm_trains_on_batches():
    x_train, y_train, x_test, y_test = data.digits()
    model = mb.nn.Sequential(
        mb.nn.Linear(64, 32, rng=0), mb.nn.BatchNorm1d(32), mb.nn.ReLU(), mb.nn.Linear(32, 10)
    )
    optimizer = mb.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(3):
        for x, y in batches(x_train, y_train, batch_size=131, drop_last=True, rng=0):
            optimizer.zero_grad()
            mb.functional.cross_entropy(model(x), y).backward()
            mb.optim.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    model.eval()
    right = sum(
        (model(x).data.argmax(1) == y).sum() for x, y in batches(x_test, y_test, shuffle=False)
    )
    assert right / len(y_test) > 0.9


# Splits -------------------------------------------------------------------------------------------


@given(
    rows=st.integers(2, 60),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32 - 1),
    labels=st.none() | st.integers(1, 4),
)
def test_a_split_is_a_partition_with_the_right_share_of_every_class(rows, share, seed, labels):
    count = round(share * rows)
    if not 0 < count < rows:
        return
    x, rng = np.arange(rows), np.random.default_rng(seed)
    y = None if labels is None else rng.integers(0, labels, rows)
    if y is not None and min(Counter(y.tolist()).values()) < 2:
        return
    (train, also), (test, as_well) = split(x, x[:, None], test=share, rng=seed, stratify=y)
    assert_array_equal(np.sort(np.concatenate([train, test])), x)
    assert_array_equal(also[:, 0], train)
    assert_array_equal(as_well[:, 0], test)
    assert len(test) == count
    assert (np.diff(train) > 0).all()
    assert (np.diff(test) > 0).all()
    if y is not None:
        for label, size in Counter(y.tolist()).items():
            fair = Fraction(size * count, rows)
            assert abs((y[test] == label).sum() - fair) < 1
    again = split(x, test=count, rng=np.random.default_rng(seed), stratify=y)
    assert_array_equal(again[1][0], test)


@pytest.mark.parametrize("labels", [None, [0, 0, 1, 1, 1], ["b", "a", "b", "a", "b"]])
def test_every_row_is_as_likely_to_be_tested_on(labels):
    rng = np.random.default_rng(0)
    counts = Counter()
    for _ in range(4000):
        _, (test,) = split(range(5), test=2, rng=rng, stratify=labels)
        counts.update(test.tolist())
    assert all(abs(counts[row] - 1600) < 6 * np.sqrt(4000 * 0.4 * 0.6) for row in range(5))


@pytest.mark.parametrize("labels", [None, [0] * 4])
def test_every_pair_of_rows_can_be_tested_on(labels):
    pairs = {tuple(split(range(4), test=2, rng=k, stratify=labels)[1][0]) for k in range(200)}
    assert pairs == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}


def test_the_parts_of_a_split_go_into_batches():
    students = data.students()
    train, test = split(students.features, students.labels, test=0.5, rng=0, stratify=[1, 0, 1, 0])
    assert_array_equal(np.sort(test[1]), [0, 1])
    (((x, _),)) = batches(*train)
    x[:] = 0
    assert train[0].min() > 0


# What both refuse ---------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [batches, split])
@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ([], ValueError, "needs arrays"),
        ([np.ones((3, 2)), np.ones(4)], ValueError, r"array \(3, 2\).*array \(4,\).*equally long"),
        ([np.ones((0, 2))], ValueError, "there are no rows"),
        ([np.ones(3), 32], TypeError, "32 is no array with rows .options are given by name"),
        ([{"x": [1]}], TypeError, "dict. is no array with rows"),
        ([[[1, 2], [3]]], TypeError, r"is no array: "),
    ],
)
def test_refuses_arrays(function, arrays, error, message):
    with pytest.raises(error, match=f"{function.__name__}.*{message}"):
        function(*arrays)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size=0 must be at least 1"),
        ({"batch_size": -2}, ValueError, "batch_size=-2 must be at least 1"),
        ({"batch_size": 2.0}, TypeError, "batch_size=2.0 must be an integer"),
        ({"drop_last": True}, ValueError, "leave no batch, since there are 3 rows and batch_size"),
    ],
)
def test_batches_refuses(options, error, message):
    with pytest.raises(error, match=message):
        batches(np.ones(3), **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"test": 0.0}, ValueError, "test=0.0 must lie between 0 and 1"),
        ({"test": 1.0}, ValueError, "test=1.0 must lie between 0 and 1"),
        ({"test": np.nan}, ValueError, "test=nan must lie between 0 and 1"),
        ({"test": 0}, ValueError, "test=0 of 4 rows leaves none to test on"),
        ({"test": 4}, ValueError, "test=4 of 4 rows leaves all to test on"),
        ({"test": 0.1}, ValueError, "test=0.1 of 4 rows leaves none to test on"),
        ({"test": "half"}, TypeError, "test='half' must be a number"),
        ({"test": True}, TypeError, "test=True must be a number"),
        ({"stratify": [0, 1, 0]}, ValueError, r"stratify is array \(3,\).*each row, \(4,\)"),
        ({"stratify": [["a"]] * 4}, ValueError, "stratify is array"),
        ({"stratify": ["a", "b", "a", "a"]}, ValueError, "class 'b' has one row"),
    ],
)
def test_split_refuses(options, error, message):
    with pytest.raises(error, match=message):
        split(np.ones(4), **{"test": 0.5} | options)
