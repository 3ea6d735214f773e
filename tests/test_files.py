"""Saving and loading: what comes back is what was saved, in PyTorch too; or an error says why."""

import json
import os
import stat
import struct

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import microbn as mb
from microbn import files

safetensors = pytest.importorskip("safetensors")


def assert_same(got, want):
    assert set(got) == set(want)
    for key, value in want.items():
        assert type(got[key]) is np.ndarray
        assert (got[key].dtype, got[key].shape) == (value.dtype, np.shape(value)), key
        assert_array_equal(got[key], value, strict=True)


def written_by_hand(arrays, header=None):
    """Build a file as https://huggingface.co/docs/safetensors describes the format."""
    entries, content = {}, b""
    for name, (dtype, shape, raw) in arrays.items():
        place = [len(content), len(content) + len(raw)]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": place}
        content += raw
    text = json.dumps(entries).encode() if header is None else header
    return struct.pack("<Q", len(text)) + text + content


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


@pytest.mark.parametrize("dtype", files.DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (0,), (2, 0, 3), (2, 1, 2, 2)])
def test_every_dtype_and_shape_comes_back(path, dtype, shape):
    array = (np.random.default_rng(0).normal(size=shape) * 100).astype(dtype)
    mb.save({"a": array, "b.c": array}, path)
    assert_same(mb.load(path), {"a": array, "b.c": array})


def test_extreme_values_come_back_to_the_bit(path):
    info = np.finfo(np.float32)
    values = [np.nan, np.inf, -np.inf, -0.0, info.tiny / 4, info.max]
    state = {"a": np.array(values, np.float32), "b": np.array([2**63 - 1, -(2**63)])}
    mb.save(state, path)
    for key, value in mb.load(path).items():
        assert value.tobytes() == state[key].tobytes()


LAYOUTS = {
    "transposed": lambda a: a.T,
    "in columns": np.asfortranarray,
    "every other": lambda a: a[:, ::2],
    "reversed": lambda a: a[::-1],
    "repeated": lambda a: np.broadcast_to(a[0], (5, a.shape[1])),
    "axes swapped": lambda a: np.moveaxis(a.reshape(2, 2, -1), 0, 2),
    "big endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "not aligned": lambda a: np.frombuffer(b"." + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    "read only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float64", "float16", "int32"])
def test_every_layout_is_saved_as_it_reads(path, layout, dtype):
    array = LAYOUTS[layout](np.arange(24).reshape(4, 6).astype(dtype))
    mb.save({"a": array}, path)
    assert_same(mb.load(path), {"a": np.array(array.tolist(), dtype)})


def test_values_may_be_tensors_numbers_and_arrays_that_share_memory(path):
    a = np.arange(6.0)
    tensor = mb.Tensor(a[:2], requires_grad=True)
    mb.save({"t": tensor, "p": tensor * 2, "n": 3, "x": a, "y": a[1:], "l": [1.0]}, path)
    want = {"t": a[:2], "p": 2 * a[:2], "n": np.array(3), "x": a, "y": a[1:], "l": np.ones(1)}
    assert_same(mb.load(path), want)


def test_what_is_loaded_is_writable_and_has_memory_of_its_own(path):
    mb.save({"a": np.zeros(3), "b": np.zeros(3), "c": np.array(0)}, path)
    state = mb.load(path)
    for array in state.values():
        assert array.flags.owndata
        array[...] = 1
    assert_same(mb.load(path), {"a": np.zeros(3), "b": np.zeros(3), "c": np.array(0)})


def network(rng):
    parts = (mb.nn.Linear(3, 4, rng=rng), mb.nn.BatchNorm1d(4), mb.nn.Linear(4, 2, rng=rng))
    return mb.nn.Sequential(*parts)


def test_training_goes_on_where_it_was(path):
    rng = np.random.default_rng(0)

    def train(model, optimizer, gradients):
        for x in gradients:
            optimizer.zero_grad()
            (model(x) ** 2).sum().backward()
            optimizer.step()

    model = network(0)
    optimizer = mb.optim.Adam(model.parameters())
    data = rng.normal(size=(6, 8, 3)).astype(np.float32)
    train(model, optimizer, data[:3])
    mb.save(model.state_dict(), path)
    mb.save(optimizer.state_dict(), path.with_suffix(".optimizer"))
    later = network(1)
    again = mb.optim.Adam(later.parameters())
    later.load_state_dict(mb.load(path))
    again.load_state_dict(mb.load(path.with_suffix(".optimizer")))
    train(model, optimizer, data[3:])
    train(later, again, data[3:])
    assert_same(later.state_dict(), model.state_dict())
    assert later.state_dict()["1.num_batches_tracked"] == 6


# The format ---------------------------------------------------------------------------------------


def test_the_file_is_as_the_format_is_described(path):
    mb.save({"w": np.array([[1, 2], [3, 4]], np.float32).T, "n": np.array(7)}, path)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert {k: (v["dtype"], v["shape"]) for k, v in header.items()} == {
        "w": ("F32", [2, 2]),
        "n": ("I64", []),
    }
    for name, want in ("w", struct.pack("<4f", 1, 3, 2, 4)), ("n", struct.pack("<q", 7)):
        first, last = header[name]["data_offsets"]
        assert content[8 + length :][first:last] == want


def test_a_file_by_another_program_is_read(path):
    path.write_bytes(written_by_hand({"w": ("F32", [2, 1], struct.pack("<2f", 1.5, -2))}))
    assert_same(mb.load(path), {"w": np.array([[1.5], [-2]], np.float32)})


def test_pytorch_opens_it(path):
    torch = pytest.importorskip("torch")
    safetensors_torch = pytest.importorskip("safetensors.torch")
    model = network(0)
    model(np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32))
    mb.save(model.state_dict(), str(path))
    theirs = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)
    )
    theirs.load_state_dict(safetensors_torch.load_file(path))
    assert_same({k: t.numpy() for k, t in theirs.state_dict().items()}, model.state_dict())


def test_a_file_of_pytorch_is_read(path):
    torch = pytest.importorskip("torch")
    safetensors_torch = pytest.importorskip("safetensors.torch")
    theirs = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)
    )
    theirs(torch.randn(5, 3))
    safetensors_torch.save_file(theirs.state_dict(), path, metadata={"format": "pt"})
    model = network(1)
    model.load_state_dict(mb.load(path))
    assert_same(model.state_dict(), {k: t.numpy() for k, t in theirs.state_dict().items()})


# What goes wrong ----------------------------------------------------------------------------------


def test_damaged_files_say_so(path):
    mb.save({"w": np.arange(3.0), "b": np.zeros(2, np.float32)}, path)
    whole = path.read_bytes()
    bad = [whole[:n] for n in range(len(whole))]
    bad += [whole + b"x", b"PK" + whole, struct.pack("<Q", 2**60) + whole[8:]]
    array = ("F32", [2], bytes(8))
    bad.append(written_by_hand({"w": ("F32", [3], bytes(8))}))  # too short for its shape
    bad.append(written_by_hand({"w": ("X99", [2], bytes(8))}))
    bad.append(written_by_hand({"w": array}, b'{"w": 3}      '))
    bad.append(written_by_hand({"w": array}, b"\xff" * 16))
    for content in bad:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"net.safetensors' is damaged, or no safetensors"):
            mb.load(path)


def test_no_byte_of_the_header_can_be_changed_to_another_kind_of_error(path):
    mb.save({"w": np.arange(2.0), "b": np.zeros((2, 1), np.float32)}, path)
    whole = path.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    refused = 0
    for position in range(8 + length):
        for byte in b'\x00\xff0-9"}':
            path.write_bytes(whole[:position] + bytes([byte]) + whole[position + 1 :])
            try:
                mb.load(path)
            except ValueError as error:
                assert "net.safetensors" in str(error)  # noqa: PT017
                refused += 1
    assert refused > 4 * length


@pytest.mark.parametrize("code", ["BF16", "F8_E4M3"])
def test_a_dtype_that_numpy_does_not_have(path, code):
    size = 2 if code == "BF16" else 1
    array = ("F32", [1], bytes(4))
    path.write_bytes(written_by_hand({"a": array, "lin.w": (code, [2], bytes(2 * size))}))
    dtype = {"BF16": "bfloat16"}.get(code, code)
    message = rf"holds {dtype}, which NumPy does not have \(lin.w\); .* float32"
    with pytest.raises(ValueError, match=message):
        mb.load(path)


def test_a_bfloat16_of_pytorch(path):
    torch = pytest.importorskip("torch")
    safetensors_torch = pytest.importorskip("safetensors.torch")
    tensor = torch.ones(2, dtype=torch.bfloat16)
    safetensors_torch.save_file({"w": tensor}, path)
    with pytest.raises(ValueError, match=r"holds bfloat16, .*\(w\)"):
        mb.load(path)
    with pytest.raises(TypeError, match="cannot save 'w'"):
        mb.save({"w": tensor}, path)


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ([np.ones(2)], TypeError, "cannot save a list; give a dict of arrays"),
        (mb.nn.Linear(1, 1), TypeError, r"cannot save a Linear; .* model.state_dict\(\)"),
        ({1: np.ones(2)}, TypeError, "an array named 1: names are strings"),
        ({"__metadata__": np.ones(2)}, ValueError, "the format reserves it"),
        ({"a": np.ones(2), "c": np.ones(2, complex)}, TypeError, r"'c', array \(2,\) complex128"),
        ({"w": np.array(["x"])}, TypeError, "'w', array .*<U1: the dtypes that can be stored"),
        ({"w": None}, TypeError, "cannot save 'w'"),
        ({"w": [[1], [2, 3]]}, TypeError, "cannot save 'w'"),
        ({"w": {"b": np.ones(2)}}, TypeError, "cannot save 'w'"),
        ({"w": np.ones(2, "M8[s]")}, TypeError, "cannot save 'w'"),
    ],
)
def test_what_cannot_be_saved_leaves_the_file_as_it_was(path, state, error, message):
    path.write_bytes(b"before")
    with pytest.raises(error, match=message):
        mb.save(state, path)
    assert path.read_bytes() == b"before"
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="long double is float64 here")
def test_a_long_double_is_refused(path):
    with pytest.raises(TypeError, match=r"use .astype, for instance .astype\(np.float64\)"):
        mb.save({"w": np.ones(2, np.longdouble)}, path)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_midway_leaves_the_file_as_it_was(path, monkeypatch, failing):
    mb.save({"a": np.ones(2)}, path)

    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(files.os, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        mb.save({"a": np.zeros(2)}, path)
    assert_same(mb.load(path), {"a": np.ones(2)})
    assert os.listdir(path.parent) == [path.name]


def test_where_there_is_no_folder_or_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        mb.save({"a": np.ones(2)}, tmp_path / "none" / "net.safetensors")
    with pytest.raises(FileNotFoundError):
        mb.load(tmp_path / "net.safetensors")
    with pytest.raises(OSError, match=r"."):
        mb.save({"a": np.ones(2)}, tmp_path)
    assert os.listdir(tmp_path) == []
    assert not list(tmp_path.parent.glob(".*.tmp"))


@pytest.mark.skipif(os.name == "nt", reason="permissions and links as POSIX has them")
def test_permissions_are_those_of_any_new_file_and_links_stay_links(tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"")
    link = tmp_path / "link"
    link.symlink_to("net")
    mb.save({"a": np.ones(2)}, link)
    assert link.is_symlink()
    assert_same(mb.load(tmp_path / "net"), {"a": np.ones(2)})
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (other, tmp_path / "net")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("call", [lambda p: mb.save({}, p), mb.load])
def test_without_the_package_the_remedy_is_named(path, monkeypatch, call):
    monkeypatch.setattr(files, "safetensors", None)
    with pytest.raises(ImportError, match=r"pip install 'microbn\[safetensors\]'"):
        call(path)
    assert not path.exists()


def test_a_state_without_arrays(path):
    mb.save(mb.nn.ReLU().state_dict(), path)
    assert mb.load(path) == {}
