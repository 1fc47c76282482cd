"""Data files: values as numpy and pyarrow wrote them, and every malformed file refused with its name."""

import contextlib
import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.plan.data.files import FileFault, describe, open_array, read
from tests.effort import tried
from tests.plan.data.loading import fault, load, write_parquet
from tests.tables import over

NUMPY_DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "f2", "f4", "f8", "c8", "c16"]


@over("code", NUMPY_DTYPES)
@over("order", ["<", ">"])
@over("shape", [(), (3,), (2, 3), (2, 0), (2, 3, 4)])
def test_npy_values_are_those_that_numpy_wrote(tmp_path, code, order, shape):
    array = numpy.random.default_rng(0).integers(0, 2 if code == "?" else 100, shape).astype(code)
    numpy.save(tmp_path / "a.npy", array.astype(array.dtype.newbyteorder(order)))
    assert torch.equal(load(tmp_path, "a.npy"), torch.from_numpy(array.copy()).reshape(shape))


def test_npy_in_fortran_order_keeps_its_indices(tmp_path):
    array = numpy.asfortranarray(numpy.arange(24.0).reshape(2, 3, 4))
    numpy.save(tmp_path / "a.npy", array)
    assert torch.equal(load(tmp_path, "a.npy"), torch.arange(24.0, dtype=torch.float64).reshape(2, 3, 4))


@pytest.mark.parametrize("code", ["u2", "u4", "u8"])
def test_wide_unsigned_integers_are_read_as_int64(tmp_path, code):
    numpy.save(tmp_path / "a.npy", numpy.array([0, 65535], dtype=code))
    assert torch.equal(load(tmp_path, "a.npy"), torch.tensor([0, 65535]))


def test_unsigned_integers_that_int64_cannot_hold_are_refused(tmp_path):
    numpy.save(tmp_path / "a.npy", numpy.array([2**63], dtype="u8"))
    assert (
        fault(tmp_path, "a.npy").message
        == "a.npy holds unsigned integers of 2^63 or more, which int64 cannot represent"
    )


@pytest.mark.parametrize("save", [numpy.savez, numpy.savez_compressed])
def test_npz_values_are_read_by_key(tmp_path, save):
    save(tmp_path / "a.npz", x=numpy.arange(6).reshape(2, 3), y=numpy.float32(2.5))
    assert torch.equal(load(tmp_path, "a.npz#x"), torch.arange(6).reshape(2, 3))
    assert torch.equal(load(tmp_path, "a.npz#y"), torch.tensor(2.5))


def test_the_only_array_of_an_archive_needs_no_key(tmp_path):
    numpy.savez(tmp_path / "a.npz", x=numpy.arange(3))
    assert torch.equal(load(tmp_path, "a.npz"), torch.arange(3))


SAFETENSORS = [
    torch.arange(6.0).reshape(2, 3),
    torch.tensor(3.5, dtype=torch.bfloat16),
    torch.tensor([1.5, -2.0], dtype=torch.float16),
    torch.tensor([True, False]),
    torch.tensor([[1, 2]], dtype=torch.int8),
    torch.zeros(2, 0),
    torch.tensor([0.5, 448.0]).to(torch.float8_e4m3fn),
    torch.tensor([1 + 2j]),
]


@over("tensor", SAFETENSORS)
def test_safetensors_values_are_those_that_its_library_wrote(tmp_path, tensor):
    safetensors.torch.save_file({"w": tensor, "other": torch.ones(3)}, tmp_path / "a.safetensors", {"format": "pt"})
    found = load(tmp_path, "a.safetensors#w")
    assert found.dtype == tensor.dtype
    assert (
        torch.equal(found.view(torch.uint8), tensor.view(torch.uint8)) if tensor.dim() else torch.equal(found, tensor)
    )


def test_a_python_object_is_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    numpy.save(tmp_path / "a.npy", numpy.array([Bomb()], dtype=object), allow_pickle=True)
    numpy.savez(tmp_path / "a.npz", x=numpy.array([Bomb()], dtype=object))
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Bomb()))
    assert fault(tmp_path, "a.npy").message == "a.npy holds Python objects, which would need pickle"
    assert fault(tmp_path, "a.npz#x").message == "a.npz#x holds Python objects, which would need pickle"
    assert "b.npy is not a `.npy` array" in fault(tmp_path, "b.npy").message
    assert not (tmp_path / "exploded").exists()


def test_truncated_files_are_refused(tmp_path):
    numpy.save(tmp_path / "a.npy", numpy.zeros(100))
    numpy.savez(tmp_path / "a.npz", x=numpy.zeros(100))
    safetensors.torch.save_file({"w": torch.zeros(100)}, tmp_path / "a.safetensors")
    write_parquet(tmp_path / "a.parquet", x=list(range(1000)))
    messages = []
    for name in ("a.npy", "a.npz", "a.safetensors", "a.parquet"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) - 100])
        messages.append(fault(tmp_path, name, "x" if name == "a.parquet" else None).message)
    assert messages[0] == "a.npy is truncated: 700 of 800 bytes are there"
    assert messages[1] == "a.npz is not a valid `.npz` archive: File is not a zip file"
    assert messages[2] == "a.safetensors#w ends beyond the file: it is truncated"
    assert messages[3].startswith("a.parquet is not a valid Parquet file:")


def npy_bytes(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


NPY_FAULTS = [
    (
        npy_bytes("{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,)}"),
        "is truncated: 0 of 80,000,000",
    ),
    (npy_bytes("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}"), "malformed header"),
    (npy_bytes("{'descr': 'S3', 'fortran_order': False, 'shape': (1,)}"), "which torch does not support"),
    (npy_bytes("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,)}"), "has named fields"),
    (npy_bytes("__import__('os').getcwd()"), "malformed header: __import__"),
    (npy_bytes("(" * 9000), "malformed header: ((("),
    (npy_bytes(" " * 60_000), "has a header of 60,000 bytes"),
    (b"\x93NUMPY\x03\x00" + struct.pack("<I", 4) + b"    ", "malformed header"),
    (b"", "is not a `.npy` array"),
    (npy_bytes("{'descr': '<i8', 'fortran_order': False, 'shape': (1,)}") + b"\0" * 16, "has 8 bytes more"),
]


@over(("content", "message"), NPY_FAULTS)
def test_a_malformed_npy_is_refused(tmp_path, content, message):
    (tmp_path / "a.npy").write_bytes(content)
    assert message in fault(tmp_path, "a.npy").message


def safetensors_bytes(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"w": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


SAFETENSORS_FAULTS = [
    (b"", "its header claims 0 bytes"),
    (struct.pack("<Q", 2**63) + b"{}", "its header claims 9,223,372,036,854,775,808 bytes"),
    (safetensors_bytes(b"{nope"), "its header is not JSON"),
    (safetensors_bytes(b"[" * 100_000), "its header is not JSON"),
    (safetensors_bytes([1]), "its header is not a mapping"),
    (safetensors_bytes({"w": 3}), "malformed entry"),
    (safetensors_bytes(entry(shape=(-1,))), "malformed entry"),
    (safetensors_bytes(entry(dtype="F4")), "holds values of the type F4"),
    (safetensors_bytes(entry(shape=(2,)), b"\0" * 4), "is truncated: 4 of 8 bytes are there"),
    (safetensors_bytes(entry(shape=(10**15,), offsets=(0, 4 * 10**15)), b"\0" * 4), "ends beyond the file"),
    (safetensors_bytes(entry(offsets=(-4, 0)), b"\0" * 4), "malformed entry"),
    (safetensors_bytes(entry(shape=(True,)), b"\0" * 4), "malformed entry"),
    (safetensors_bytes(entry(offsets=(False, 4)), b"\0" * 4), "malformed entry"),
    (safetensors_bytes(entry(shape=(10**30,)), b"\0" * 4), "malformed entry"),
    (safetensors_bytes(b'{"w": {"shape": [' + b"9" * 8000 + b"]}}"), "its header is not JSON"),
    (safetensors_bytes(entry(shape=(0, 2**62, 2**62), offsets=(0, 0))), "which torch does not support"),
    (safetensors_bytes(entry(shape=(0, *[1] * 64), offsets=(0, 0))), "which torch does not support"),
]


@over(("content", "message"), SAFETENSORS_FAULTS)
def test_a_malformed_safetensors_is_refused(tmp_path, content, message):
    (tmp_path / "a.safetensors").write_bytes(content)
    assert message in fault(tmp_path, "a.safetensors#w").message


def test_a_missing_key_lists_what_is_there(tmp_path):
    numpy.savez(tmp_path / "a.npz", images=numpy.zeros(1), labels=numpy.zeros(1))
    missing = fault(tmp_path, "a.npz#image")
    assert (missing.message, missing.hint) == ("a.npz holds no array `image`", "did you mean `images`?")
    assert fault(tmp_path, "a.npz#q").hint == "it holds images, labels"
    unnamed = fault(tmp_path, "a.npz")
    assert unnamed.message == "a.npz holds 2 arrays, and none is named"
    assert unnamed.hint == "write `a.npz#key`; it holds images, labels"


@pytest.mark.slow
def test_a_zip_bomb_is_refused_by_what_it_unpacks_to(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as file:
        file.write(npy_bytes("{'descr': '|u1', 'fortran_order': False, 'shape': (268435456,)}"))
        for _ in range(256):
            file.write(bytes(2**20))
    assert (tmp_path / "a.npz").stat().st_size < 2**19
    found = fault(tmp_path, "a.npz#x", limit=64 * 2**20)
    assert found.message == "a.npz#x needs 256.0 MiB, and the limit is 64.0 MiB"


def test_a_zip_entry_that_unpacks_to_more_than_it_claims_is_refused(tmp_path):
    buffer = io.BytesIO()
    numpy.savez_compressed(buffer, x=numpy.zeros(1000))
    content = bytearray(buffer.getvalue())
    central = content.rindex(b"PK\x01\x02")
    content[central + 24 : central + 28] = struct.pack("<I", 500)
    (tmp_path / "a.npz").write_bytes(content)
    assert fault(tmp_path, "a.npz#x").message == "a.npz is not a valid `.npz` archive: Bad CRC-32 for file 'x.npy'"


def test_an_encrypted_archive_is_refused(tmp_path):
    numpy.savez(tmp_path / "a.npz", x=numpy.zeros(10))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    (tmp_path / "a.npz").write_bytes(content)
    assert "a.npz cannot be unpacked" in fault(tmp_path, "a.npz#x").message


@pytest.mark.parametrize("text", ["../a.npy", "/etc/passwd.npy", "sub/../../a.npy", "link.npy", "linked/a.npy"])
def test_promise_5_a_file_outside_the_allowed_folders_is_not_read(tmp_path, text):
    inside = tmp_path / "configs"
    (inside / "sub").mkdir(parents=True)
    numpy.save(tmp_path / "a.npy", numpy.zeros(1))
    (inside / "link.npy").symlink_to(tmp_path / "a.npy")
    (inside / "linked").symlink_to(tmp_path)
    found = fault(inside, text)
    assert found.message == f"`{text}` is outside the folders that this config may read"


def test_allowed_folders_may_be_read(tmp_path):
    (tmp_path / "configs").mkdir()
    numpy.save(tmp_path / "a.npy", numpy.ones(1))
    array = open_array("../a.npy", tmp_path / "configs", [tmp_path])
    assert read(array).item() == 1
    assert read(open_array(str(tmp_path / "a.npy"), tmp_path / "configs", [tmp_path])).item() == 1


def test_a_link_inside_the_folder_is_followed(tmp_path):
    numpy.save(tmp_path / "a.npy", numpy.ones(1))
    (tmp_path / "b.npy").symlink_to("a.npy")
    assert load(tmp_path, "b.npy").item() == 1


def test_pipes_devices_and_folders_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "zero.npy").symlink_to("/dev/zero")
    assert fault(tmp_path, "pipe.npy").message == "pipe.npy is a pipe, socket or device, not an ordinary file"
    assert fault(tmp_path, "folder.npy").message == "folder.npy is a folder, not an ordinary file"
    with pytest.raises(FileFault, match="a pipe, socket or device"):
        open_array("zero.npy", tmp_path, [Path("/dev")])


def test_a_missing_file_gets_the_nearest_name(tmp_path):
    numpy.save(tmp_path / "points.npy", numpy.zeros(1))
    missing = fault(tmp_path, "point.npy")
    assert (missing.message, missing.hint) == ("there is no file point.npy", "did you mean `points.npy`?")
    assert fault(tmp_path, "q.csv").hint == f"{tmp_path} holds points.npy"
    assert fault(tmp_path, "data/points.npy").hint == f"there is no folder {tmp_path}/data"


def test_a_link_to_what_is_not_there_is_told_with_its_target(tmp_path):
    (tmp_path / "x.npy").symlink_to(tmp_path / "gone.npy")
    found = fault(tmp_path, "x.npy")
    assert found.message == f"x.npy is a link to {tmp_path}/gone.npy, which is not there"
    assert found.hint == "fix the link, or name another file"


NAME_FAULTS = [
    ("a.pkl", None, "`a.pkl` is not a supported file type"),
    ("a.pt", None, "`a.pt` is not a supported file type"),
    ("a", None, "`a` is not a supported file type"),
    ("a.csv#x", None, "a `.csv` file has no `#key`"),
    ("a.npy", "x", "a `.npy` file has no columns"),
    ("a.npz", "x", "a `.npz` file has no columns"),
]


@over(("text", "columns", "message"), NAME_FAULTS)
def test_a_kind_of_file_says_what_it_takes(tmp_path, text, columns, message):
    assert fault(tmp_path, text, columns).message == message


@pytest.mark.parametrize("text", ["a\0.npy", "a" * 5000 + ".npy", "", ".npy", "~/a.npy"])
def test_any_path_ends_in_a_fault(tmp_path, text):
    fault(tmp_path, text)


def test_a_file_without_permission_is_refused(tmp_path):
    numpy.save(tmp_path / "a.npy", numpy.zeros(1))
    (tmp_path / "a.npy").chmod(0)
    if os.access(tmp_path / "a.npy", os.R_OK):
        pytest.skip("this user reads everything")
    assert fault(tmp_path, "a.npy").message == "a.npy cannot be read: permission denied"


def test_a_sparse_file_larger_than_memory_is_refused_by_its_size(tmp_path):
    header = npy_bytes("{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776,)}")
    with (tmp_path / "a.npy").open("wb") as file:
        file.write(header)
        try:
            file.truncate(len(header) + 2**40)
        except OSError:
            pytest.skip("this file system has no sparse files of that size")
    assert fault(tmp_path, "a.npy").message.startswith("a.npy needs 1.0 TiB, and the limit")
    with (tmp_path / "a.csv").open("wb") as file:
        file.truncate(2**40)
    assert fault(tmp_path, "a.csv", "x").message.startswith("a.csv needs 1.0 TiB, and the limit")


@settings(max_examples=tried(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["a.npy", "a.npz", "a.safetensors", "a.csv", "a.parquet"]),
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=4)), max_size=6),
    cut=st.none() | st.floats(0, 1),
)
def test_any_bytes_end_in_values_or_a_fault(tmp_path, name, edits, cut):
    writers = {
        "a.npy": lambda path: numpy.save(path, numpy.arange(5)),
        "a.npz": lambda path: numpy.savez_compressed(path, x=numpy.arange(5)),
        "a.safetensors": lambda path: safetensors.torch.save_file({"x": torch.arange(5)}, path),
        "a.csv": lambda path: path.write_text("x,y\n1,2\n3,4\n"),
        "a.parquet": lambda path: write_parquet(path, x=[1, 2], y=[0.5, 1.5]),
    }
    path = tmp_path / name
    writers[name](path)
    content = bytearray(path.read_bytes())
    for place, patch in edits:
        start = int(place * len(content))
        content[start : start + len(patch)] = patch
    path.write_bytes(content if cut is None else content[: int(cut * len(content))])
    with contextlib.suppress(FileFault):
        read(open_array(name, tmp_path))


@pytest.mark.parametrize("what", ["the file", "its folder", "a pipe"])
def test_a_file_that_is_replaced_after_planning_is_not_read(tmp_path: Path, what: str) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "d.csv").write_text("x\n41\n42\n")
    folder = tmp_path / "allowed"
    (folder / "data").mkdir(parents=True)
    path = folder / "data" / "d.csv"
    path.write_text("x\n1\n2\n")
    array = open_array("data/d.csv", folder, columns="x")
    assert describe(array)[0] == (2,)
    path.unlink()
    if what == "the file":
        path.symlink_to(secret / "d.csv")
    elif what == "a pipe":
        os.mkfifo(path)
    else:
        path.parent.rmdir()
        (folder / "data").symlink_to(secret)
    told = "is not an ordinary file" if what == "a pipe" else "has been replaced by a link since it was checked"
    with pytest.raises(FileFault, match=told):
        read(array)
