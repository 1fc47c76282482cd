"""Classes of arrays of text and of integers, against scikit-learn."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from sklearn.preprocessing import LabelEncoder, OneHotEncoder

import runner
from runner.plan.data import text_arrays
from runner.plan.data.files import ArrayFile, FileFault, array_words, describe, read
from runner.plan.data.tables.conversions import Conversion, Reading
from tests.engine.running import compiled, rows_of
from tests.tables import over

SEEN = "parameters: {w: 1.0}\nexpression: |\n  seen = x\n  f = w * x.sum()\n"
NAMES = numpy.array(["virginica", "setosa", "versicolor", "setosa", "rosé", " setosa "])
STORED = {
    "text": NAMES,
    "swapped": NAMES.astype(">U12"),
    "bytes": numpy.char.encode(NAMES, "utf-8"),
    "column-major": numpy.asfortranarray(NAMES),
}


def seen(folder: Path, source: str) -> numpy.ndarray[Any, Any]:
    return rows_of(f"{SEEN}data: {{train: {{{source}}}}}\n", folder)[1]["seen"].numpy()


@over("stored", sorted(STORED))
def test_sorted_classes_of_an_array_are_those_of_scikit_learn(tmp_path: Path, stored: str) -> None:
    numpy.savez(tmp_path / "iris.npz", names=STORED[stored], other=numpy.zeros(6))
    numpy.save(tmp_path / "names.npy", STORED[stored])
    expected = LabelEncoder().fit_transform(numpy.char.strip(NAMES))
    for columns in ("file: iris.npz, columns: {x: names}", "columns: {x: names.npy}", "columns: {x: iris.npz#names}"):
        found = seen(tmp_path, f"{columns}, classes: {{x: sorted}}")
        assert (found.dtype, found.tolist()) == (numpy.int64, expected.tolist()), columns
    hot = OneHotEncoder(sparse_output=False).fit_transform(numpy.char.strip(NAMES)[:, None])
    found = seen(tmp_path, "file: iris.npz, columns: {x: names}, one_hot: {names: sorted}")
    assert (found.dtype, found.tolist()) == (numpy.float32, hot.tolist())


def test_integer_classes_of_an_array_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    values = numpy.array([30, -1, 200, 200, 9])
    for dtype in ("int64", "int16", ">i4"):
        numpy.savez(tmp_path / "a.npz", y=values.astype(dtype))
        found = seen(tmp_path, "file: a.npz, columns: {x: y}, classes: {x: sorted}")
        assert found.tolist() == LabelEncoder().fit_transform(values).tolist()
    numpy.savez(tmp_path / "a.npz", y=values > 9)
    assert seen(tmp_path, "file: a.npz, columns: {x: y}, classes: {x: sorted}").tolist() == [1, 0, 1, 1, 0]


def test_an_array_larger_than_a_block_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.plan.data.text_arrays._BLOCK_BYTES", 1000)  # 20 of 48 bytes each
    names = NAMES[numpy.random.default_rng(0).integers(0, len(NAMES), 117)]
    names[-1] = "last"
    numpy.save(tmp_path / "names.npy", names)
    expected = LabelEncoder().fit_transform(numpy.char.strip(names))
    assert seen(tmp_path, "columns: {x: names.npy}, classes: {x: sorted}").tolist() == expected.tolist()


@pytest.mark.slow
@over("dtype", ["S1", "U1", "S40", "int8", "int64"])
@over("how", ["classes", "one_hot"])
def test_reading_classes_takes_the_memory_that_is_planned(tmp_path: Path, dtype: str, how: str) -> None:
    rows = 100_000
    numpy.save(tmp_path / "x.npy", numpy.arange(rows).astype("U1").astype(dtype))
    text = f"{SEEN}data: {{train: {{columns: {{x: x.npy}}, {how}: {{x: sorted}}}}}}\n"
    plan = compiled(text, tmp_path)
    source = plan.sources["train"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(text_arrays, "_BLOCK_BYTES", 1000 * int(dtype.strip("SUint")))
        tracemalloc.start()
        read(source.columns[0].array)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    own = rows * source.columns[0].bytes if how == "one_hot" else 0  # by torch, which is not traced
    assert peak + own < source.bytes + source.reading_bytes + 200_000


def test_an_array_of_text_selects_rows_and_fits_to_them(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "iris.npz", names=NAMES[:5], x=numpy.arange(5.0))
    both = "file: iris.npz, columns: {x: x, y: names}, select: \"names in ('setosa', 'versicolor')\""
    config = SEEN.replace("  f = w * x", "  label = y / 1\n  f = w * (seen * label)") + f"data: {{train: {{{both}"
    row = rows_of(f"{config}, classes: {{y: sorted}}}}}}\n", tmp_path)[1]
    assert (row["seen"].tolist(), row["label"].tolist()) == ([1.0, 2.0, 3.0], [0, 1, 0])
    with pytest.raises(
        runner.ConfigError, match=r"iris.npz#names holds `versicolor` in row 2, which is no class of `names`"
    ):
        rows_of(f"{config}, classes: {{y: [setosa]}}}}}}\n", tmp_path)
    folded = "file: iris.npz, columns: {x: x, y: names}, select: {share: [0, 0.5], stratify: names}"
    rows_of(f"{SEEN}data: {{train: {{{folded}, classes: {{y: sorted}}}}}}\n", tmp_path)


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_last_character_of_unicode_is_text_in_either_byte_order(order: str, tmp_path: Path) -> None:
    names = [chr(0x10FFFF), "a", chr(0x10000)]
    numpy.save(tmp_path / "names.npy", numpy.array(names).astype(f"{order}U1"))
    assert read_classes(tmp_path / "names.npy", ("a", chr(0x10000), chr(0x10FFFF))).tolist() == [2, 0, 1]


def test_hostile_arrays_of_text_are_refused(tmp_path: Path) -> None:
    def fault(name: str) -> str:
        with pytest.raises(FileFault, match=r".") as caught:
            read_classes(tmp_path / name)
        return caught.value.message

    numpy.save(tmp_path / "unicode.npy", NAMES)
    content = (tmp_path / "unicode.npy").read_bytes()
    (tmp_path / "unicode.npy").write_bytes(content[:-4] + b"\xff\xff\xff\xff")
    assert fault("unicode.npy") == "unicode.npy holds characters that are not Unicode"
    (tmp_path / "short.npy").write_bytes(content[:-4])
    assert fault("short.npy").startswith("short.npy is truncated")
    numpy.save(tmp_path / "bytes.npy", numpy.array([b"\xff", b"a"]))
    assert fault("bytes.npy") == "bytes.npy holds bytes that are not UTF-8"
    numpy.save(tmp_path / "wide.npy", numpy.array([b"a" * (1 << 21)]))
    assert fault("wide.npy") == "wide.npy has 2,097,152 bytes for each text, and at most 1,048,576 are read"
    for claimed in (b"|S0", b"<U0"):
        numpy.save(tmp_path / "zero.npy", numpy.zeros(2, dtype="S1"))
        written = (tmp_path / "zero.npy").read_bytes().replace(b"|S1", claimed)
        (tmp_path / "zero.npy").write_bytes(written[:-2])
        assert fault("zero.npy") == "zero.npy holds nothing in row 0"
        (tmp_path / "zero.npy").write_bytes(written[:-2].replace(b"(2,), }" + 9 * b" ", b"(2147483648,), }"))
        with pytest.raises(FileFault, match=r"zero\.npy holds nothing in row 0"):
            array_words(ArrayFile(tmp_path / "zero.npy", None, None))


def read_classes(path: Path, classes: tuple[str, ...] = ("a",)) -> torch.Tensor:
    array = ArrayFile(path, None, None, Reading(conversions=(("y", Conversion(classes)),)))
    describe(array)
    return read(array)
