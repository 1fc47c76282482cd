"""Snapshot files: no bit is lost, and every fault of one has its place and its text."""

from __future__ import annotations

import json
import os
import re
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from runner.compare.numbers.digested import Condensed, condense, moved_statistics
from runner.compare.numbers.digested import from_text as condensed_from
from runner.compare.numbers.digested import to_text as condensed_text
from runner.compare.numbers.tolerances import Tolerance
from runner.compare.numbers.ulp import same_bits
from runner.compare.snapshots.model import Overlay, Snapshot, StoredRow
from runner.compare.snapshots.reading import read
from runner.compare.snapshots.writing import store_tensor, write
from runner.errors import SnapshotError
from runner.plan.rows.columns import Column
from tests.compare.numbers.test_numerals import DTYPES, tensors
from tests.compare.snapshotting import LINEAR, WIDE, contents, edit, sidecar_of, sidecars_of, taken
from tests.tables import over

ENVIRONMENT = {
    "torch": "2.13.0+cpu",
    "device": "cpu",
    "device_name": None,
    "dtype": "float32",
    "cpu_capability": "AVX2",
    "threads": 2,
    "engine": "eager",
    "processor": "some processor",
    "libraries": "mkl 2024.2",
    "battery": "0123456789abcdef",
}
quiet = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")


def snapshot_of(values: dict[str, Tensor | None], *, varying: bool = False, large: str = "full") -> Snapshot:
    columns = tuple(
        Column(name, "weight", value.dtype, None if varying else tuple(value.shape))
        for name, value in values.items()
        if value is not None
    )
    row = StoredRow(0, "start", {column.name: store_tensor(values[column.name], column, large) for column in columns})
    return Snapshot({"seed": "0123456789abcdef"}, ENVIRONMENT, large, columns, (row,))


@quiet
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from(["w", "null", "nan1", "x1.grad", "ü", "on"]), tensors(), max_size=4), st.booleans()
)
def test_any_tensor_survives_the_file(tmp_path: Path, values: dict[str, Tensor], varying: bool) -> None:
    snapshot = snapshot_of(dict(values), varying=varying)
    path = tmp_path / "snapshots" / "any.yaml"
    write(snapshot, path, "any.yaml")
    found, of = read(path)
    assert of == "any.yaml"
    assert found.columns == snapshot.columns
    for name, value in values.items():
        back = found.rows[0][name]
        assert isinstance(back, Tensor)
        assert same_bits(back, value)


@quiet
@over("dtype", DTYPES)
def test_large_tensors_of_any_dtype_survive_beside_the_file(dtype: torch.dtype, tmp_path: Path) -> None:
    value = (torch.arange(100) % 7).reshape(10, 10).to(dtype)
    path = tmp_path / "snapshots" / "any.yaml"
    write(snapshot_of({"w": value}), path, "any.yaml")
    back = read(path)[0].rows[0]["w"]
    assert isinstance(back, Tensor)
    assert same_bits(back, value)


@pytest.mark.parametrize("large", ["stats", "digest"])
def test_large_tensors_may_be_kept_as_numbers_about_them(large: str, tmp_path: Path) -> None:
    value = torch.linspace(-1, 3, 65)
    path = tmp_path / "snapshots" / "any.yaml"
    write(snapshot_of({"w": value}, large=large), path, "any.yaml")
    back = read(path)[0].rows[0]["w"]
    assert isinstance(back, Condensed)
    assert (back.summary is None) == (large == "digest")
    assert back.digest == condense(value, statistics=False).digest
    assert not sidecars_of(path)


@given(st.lists(st.floats(width=32), min_size=1, max_size=80))
def test_statistics_survive_their_text(numbers: list[float]) -> None:
    whole = condense(torch.tensor(numbers), statistics=True)
    back = condensed_from(condensed_text(whole), whole.dtype, whole.shape)
    assert back is not None
    assert back.summary is not None
    assert whole.summary is not None
    assert back.digest == whole.digest
    assert (back.summary.nan, back.summary.inf, back.summary.zeros) == (
        whole.summary.nan,
        whole.summary.inf,
        whole.summary.zeros,
    )
    for name in ("mean", "std", "min", "max", "norm"):
        before, after = getattr(whole.summary, name), getattr(back.summary, name)
        assert after == (before if before is None else pytest.approx(before, rel=1e-8, abs=1e-300))


@given(st.lists(st.floats(width=32), min_size=1, max_size=80))
def test_no_statistic_has_moved_by_being_written(numbers: list[float]) -> None:
    value = torch.tensor(numbers)
    kept = condensed_from(condensed_text(condense(value, statistics=True)), value.dtype, tuple(value.shape))
    assert kept is not None
    other = replace(kept, digest="0" * 16)
    assert moved_statistics(value, other, Tolerance("bitwise")) == ()
    assert moved_statistics(value, other, Tolerance("ulp", ulp=0)) is None
    assert moved_statistics(value, kept, Tolerance("bitwise")) is None


def test_a_tensor_that_no_step_changes_is_stored_once(tmp_path: Path) -> None:
    path = taken(tmp_path, WIDE.replace("steps: 2", "steps: [backward, backward, backward]"))
    one = 9 * 9 * 4
    size = sidecar_of(path).stat().st_size
    assert 4 * one < size < 5 * one + 1000  # the weights once, and three gradients


def test_what_the_file_looks_like(tmp_path: Path) -> None:
    text = taken(tmp_path, LINEAR).read_text(encoding="utf-8")
    rows = text[text.index("tensors:") :]
    assert rows == (
        "tensors:\n"
        "  f: value float32 [1]\n"
        "  x1: weight float32 [1]\n"
        "  x1.grad: gradient float32 [1]\n"
        "  x2: weight float32 [1]\n"
        "  x2.grad: gradient float32 [1]\n"
        "rows:\n"
        "  0 start:\n"
        "    x1: 100.0\n"
        "    x1.grad: null\n"
        "    x2: 200.0\n"
        "    x2.grad: null\n"
        "  1 1.backward:\n"
        "    f: 7000.0\n"
        "    x1: 100.0\n"
        "    x1.grad: 10.0\n"
        "    x2: 200.0\n"
        "    x2.grad: 30.0\n"
        "  2 2.step:\n"
        "    x1: 99.9\n"
        "    x1.grad: 10.0\n"
        "    x2: 199.7\n"
        "    x2.grad: 30.0\n"
        "...\n"
    )
    head = text[: text.index("tensors:")]
    assert re.fullmatch(
        r"# the numbers of model\.yaml, as `steprun check` expects them; .*\n"
        r'format: 2\nof: "model\.yaml"\nconfig:\n(?:  [\w.]+: "[0-9a-f]{8}"\n){8}'
        r"environment:\n(?:  \w+: .+\n){10}large: full\n",
        head,
    )


def test_overlays_survive(tmp_path: Path) -> None:
    base = snapshot_of({"w": torch.tensor([1.0, 2.0]), "v": torch.tensor(3.0)})
    other = {**ENVIRONMENT, "device": "cuda", "device_name": "NVIDIA H100"}
    overlay = Overlay(other, {0: {"w": store_tensor(torch.tensor([1.0, 2.5]), base.columns[0], "full")}})
    whole = replace(base, overlays=(overlay,))
    path = tmp_path / "snapshots" / "any.yaml"
    write(whole, path, "any.yaml")
    found, _ = read(path)
    assert found.environment == ENVIRONMENT
    rows, exact = found.rows_in(other)
    assert exact
    assert [str(rows[0][name]) for name in ("w", "v")] == ["tensor([1.0000, 2.5000])", "tensor(3.)"]
    rows, exact = found.rows_in({**other, "threads": 8})  # the same device, other bits
    assert not exact
    assert str(rows[0]["w"]) == "tensor([1.0000, 2.5000])"
    rows, exact = found.rows_in({**ENVIRONMENT, "threads": 8})
    assert not exact
    assert str(rows[0]["w"]) == "tensor([1., 2.])"


# --- faults

EDITS = {
    "x1: 1OO.0": ("    x1: 100.0", "    x1: 1OO.0"),
    "x1: 100.0, 1.0": ("    x1: 100.0", "    x1: 100.0, 1.0"),
    "x3: 100.0": ("    x1: 100.0", "    x3: 100.0"),
    "x1: [100.0]": ("    x1: 100.0", "    x1: [100.0]"),
    "x1: sha256:12": ("    x1: 100.0", "    x1: sha256:12"),
    "format: 3": ("format: 2", "format: 3"),
    "large: some": ("large: full", "large: some"),
    "huge: full": ("large: full", "huge: full"),
    "x1: weight float33 [1]": ("  x1: weight float32 [1]", "  x1: weight float33 [1]"),
    "1 2.step:": ("  2 2.step:", "  1 2.step:"),
    "two:": ("  2 2.step:", "  two:"),
    "cores:": ("  threads: ", "  cores: "),
    "of: ../elsewhere": ('of: "model.yaml"', 'of: "../elsewhere/model.yaml"'),
    "threads: two": ("  threads: ", "  threads: two\n  # "),
    "engine: 2": ('  engine: "eager"', "  engine: 2"),
    "jax: 0.10": ('  engine: "eager"', '  engine: "xla"\n  jax: 0.10'),
    "device: [cpu]": ('  device: "cpu"', "  device: [cpu]"),
    "x2.gr": ("    x2.grad: 30.0\n...", "    x2.gr"),
    "x3: 1.0": ("...", "...\nx3: 1.0"),
    "<<<<<<< HEAD": ("    x1: 100.0", "<<<<<<< HEAD\n    x1: 100.0\n=======\n    x1: 101.0\n>>>>>>> other"),
}
"""What is written in place of what, by the name of the case in `bad_snapshots.txt`."""

WRITTEN_WITH = "2.13.0+cpu"
"""The torch of the texts."""

TEXTS = dict(
    part.partition("\n")[::2]
    for part in (Path(__file__).parent / "bad_snapshots.txt").read_text(encoding="utf-8").split("=== ")[1:]
)


UNCERTAIN_EDITS = {
    "no uncertainty": ("    x1: 100.0 ~0\n", "    x1: 100.0\n"),
    "a negative uncertainty": ("    x1: 100.0 ~0\n", "    x1: 100.0 ~-2^-20,2^-20\n"),
    "an absurd uncertainty": ("    x1: 100.0 ~0\n", "    x1: 100.0 ~2^4000,2^4000\n"),
    "an uncertainty of one part": ("    x1: 100.0 ~0\n", "    x1: 100.0 ~2^-20\n"),
    "a largest below the root mean square": ("    x1: 100.0 ~0\n", "    x1: 100.0 ~2^-20,2^-21\n"),
    "an uncertainty beyond the dtype": ("    x1: 100.0 ~0\n", "    x1: 100.0 ~2^300,2^300\n"),
    "a mark without its blank": ("    x1: 100.0 ~0\n", "    x1: 100.0~2^3,2^4\n"),
    "rules of an unknown version": ("{rules: 1,", "{rules: 7,"),
    "no runs": ("runs: 3}", "runs: 0}"),
    "no rules": ("uncertainty: {rules: 1, runs: 3}\n", ""),
}
"""The same for a snapshot with uncertainties."""


def test_a_statistic_without_an_uncertainty_is_told(tmp_path: Path) -> None:
    path = taken(tmp_path, WIDE + "snapshot: {tensors: stats}\n", runs=3)
    path.write_text(re.sub(r"(std \S+?)~\S+", r"\1", path.read_text(), count=1))
    with pytest.raises(SnapshotError, match="`w`: the std has no uncertainty here, and other statistics have one"):
        read(path)


@pytest.mark.parametrize("name", UNCERTAIN_EDITS)
def test_an_uncertainty_that_was_edited_says_where(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(taken(tmp_path, LINEAR, runs=3), *UNCERTAIN_EDITS[name])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SnapshotError, match=r".") as caught:
        read(Path("snapshots/model.yaml"))
    assert f"{caught.value}\n\n".startswith(TEXTS[name])


@pytest.mark.parametrize("name", EDITS)
def test_a_snapshot_that_was_edited_or_cut_off_says_where(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(taken(tmp_path, LINEAR), *EDITS[name])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SnapshotError, match=r".") as caught:
        read(Path("snapshots/model.yaml"))
    text = str(caught.value)
    if torch.__version__ != WRITTEN_WITH:  # the marks below the line are as long as the version
        text = re.sub(
            r'(  torch: )"[^"]+"\n      \|   \^+', rf'\1"{WRITTEN_WITH}"\n      |   ^^^^^^^^^^^^^^^^^^^', text
        )
    assert f"{text}\n\n" == TEXTS[name]
    assert all(problem.line is not None for problem in caught.value.problems)


def test_an_empty_snapshot_says_so(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR)
    path.write_text("\n")
    with pytest.raises(SnapshotError, match=r"the snapshot is empty"):
        read(path)


def test_more_faults_than_a_person_reads_are_counted(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR.replace("[backward, step]", "20"))
    text = path.read_text()
    path.write_text(re.sub(r"(?m)^(    x1): .*$", r"\1: one", text))
    with pytest.raises(SnapshotError, match=r"and 11 more problems") as caught:
        read(path)
    assert len(caught.value.problems) == 11


@over("cut", range(1, 40, 3))
def test_a_snapshot_cut_off_anywhere_is_refused(cut: int, tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * cut // 40])
    with pytest.raises(SnapshotError, match=r"cut off|empty"):
        read(path)


def sidecar_faults(path: Path) -> dict[str, str]:
    sidecar = sidecar_of(path)
    whole = sidecar.read_bytes()
    told = {}
    for name, data in {
        "missing": None,
        "cut": whole[:-10],
        "of another": None,
        "flipped": bytes([*whole[:-1], whole[-1] ^ 1]),
    }.items():
        if name == "of another":
            other = path.with_name("other.yaml")
            write(snapshot_of({"w": torch.arange(81.0)}), other, "other.yaml")
            data = sidecar_of(other).read_bytes()
        if data is None:
            sidecar.unlink()
        else:
            sidecar.write_bytes(data)
        with pytest.raises(SnapshotError, match=r"restore the file that belongs to this snapshot") as caught:
            read(path)
        told[name] = caught.value.problems[0].message
        sidecar.write_bytes(whole)
    return told


def test_large_tensors_that_are_not_beside_the_snapshot_are_told(tmp_path: Path) -> None:
    path = taken(tmp_path, WIDE)
    name = sidecar_of(path).name
    told = sidecar_faults(path)
    assert told["missing"] == f"its elements are in {name}, and there is no such file"
    assert told["cut"].startswith(f"{name} is damaged: ")
    assert told["of another"] == f"{name} does not contain this tensor"
    assert re.fullmatch(rf"`w(\.grad)?` in {re.escape(name)} has a different digest", told["flipped"])


HEADERS = {
    "no header": (b"", "is damaged: it is not a valid `.safetensors` file: its header claims 0 bytes"),
    "too large a header": (struct.pack("<Q", 200 << 20), "is damaged: it has a header of 200.0 MiB"),
    "no JSON": (struct.pack("<Q", 100), "is damaged: it is not a `.safetensors` file: its header is not JSON"),
    "no mapping": (
        struct.pack("<Q", 3) + b"[1]",
        "is damaged: it is not a `.safetensors` file: its header is not a mapping",
    ),
    "no place": (struct.pack("<Q", 7) + b'{"x":1}', "is damaged: an entry of its header lacks its offsets"),
    "too short": (
        struct.pack("<Q", 57) + b'{"x": {"dtype": "U8", "shape": [9], "data_offsets":[0,9]}}'[:57],
        "is damaged: ",
    ),
}


def beyond(path: Path, digest: str) -> bytes:
    """The start of a file whose only tensor has the digest, and 3 GiB."""
    size = 3 << 30
    header = json.dumps({digest: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header


@pytest.mark.parametrize("kind", [*HEADERS, "a tensor of another size"])
def test_a_hole_of_gigabytes_in_the_place_of_large_tensors_takes_no_memory(tmp_path: Path, kind: str) -> None:
    path = taken(tmp_path, WIDE)
    sidecar = sidecar_of(path)
    digest = re.findall(r"sha256:([0-9a-f]{16})", path.read_text())[0]
    start, message = HEADERS.get(kind) or (beyond(path, digest), "has a different digest")
    sidecar.write_bytes(start)
    os.truncate(sidecar, len(start) + (3 << 30))
    tracemalloc.start()
    try:
        with pytest.raises(SnapshotError, match=re.escape(message)):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_a_hole_in_the_text_is_reported_at_its_first_byte_and_read_once_at_a_time(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR)
    size = len(path.read_bytes())
    os.truncate(path, 200 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(SnapshotError, match=r"a NUL byte in the text") as caught:
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 450 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.problems[0].line == path.read_bytes()[:size].count(b"\n") + 1


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    path = taken(tmp_path, WIDE)
    before = contents(tmp_path)
    snapshot, of = read(path)
    write(snapshot, path, of)
    assert contents(tmp_path) == before
