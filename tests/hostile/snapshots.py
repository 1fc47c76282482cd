"""Folders of snapshots as a stranger could send them, by mutation of real ones; for as long as a person lets it run.

    python -m tests.hostile.snapshots --minutes 60

Each folder is checked, updated, taken again and shown, in processes that may end. What is found is printed, and the
exit code is 1: an exception that is no fault of steprun's family, a fault without a place or a file, a crash, a hang, a
growth by more than 500 MiB, a character that would reach the terminal as something else than text, a file outside the
folder that was written or removed, and an update that succeeds and leaves what does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import socket
import stat
import sys
import tempfile
import time
import traceback
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from runner.cli import app
from runner.cli.main import main as steprun
from runner.compare.snapshots.reading import read
from runner.compare.snapshots.updating import with_overlay
from runner.compare.snapshots.writing import write
from runner.errors import SteprunError
from tests.compare.snapshotting import FIRST_FORMAT, LINEAR
from tests.hostile.children import Finding, tried
from tests.hostile.memory import forget_peak, peak
from tests.hostile.run_directories import VALUES, make_sparse, places, put
from tests.hostile.snapshot_texts import EVIL, changed

SECONDS = 5
GROWTH = 500  # MiB
ROOM = 6 << 30
CONFIGS = {
    "full": """\
name: full
parameters: {w: {shape: [9, 9], init: {normal: {std: 0.5}}}, b: {shape: [3], init: zeros}}
constants: {x: {shape: [2, 9], init: normal}}
expression: |
  h = tanh(x @ w)
  n = b[:iteration]
  k = h.argmax(1)
  loss = (h ** 2).mean() + n.sum()
optimizer: {adam: {lr: 0.01}}
steps: 3
snapshot: {uncertainty: {runs: 3}, restart: [1]}
""",
    "stats": """\
name: stats
dtype: float64
parameters: {w: {shape: [9, 9], init: {normal: {std: 0.5}}}}
constants: {x: {file: points.csv, dtype: float64}}
expression: |
  h = x @ w
  positive = h > 0
  loss = (h ** 2).mean()
optimizer: {sgd: {lr: 0.01}}
steps: 2
snapshot: {tensors: stats, uncertainty: {runs: 3}, tolerances: {"w*": {rtol: 1e-3}}}
""",
    "first": LINEAR,
}
POINTS = "a,b,c,d,e,f,g,h,i\n1.5,2,3,4,5,6,7,8,9\n9,8,7,6,5,4,3,2,1.25\n"
Files = dict[str, bytes]
"""Every file of a folder with configs, by its path there."""


def sound(folder: Path) -> Files:
    """A folder with configs and their snapshots: of tensors as a whole, of statistics with an overlay, of format 1."""
    (folder / "points.csv").write_text(POINTS)
    for name, text in CONFIGS.items():
        (folder / f"{name}.yaml").write_text(text)
        if name != "first":
            code, text, _ = _printed("snapshot", str(folder / f"{name}.yaml"), "--budget", "0")
            assert code == 0, text
    path = folder / "snapshots" / "stats.yaml"
    base, of = read(path)
    values = dict(base.rows[1].values)
    values["loss"] = base.rows[2].values["loss"]
    rows = (base.rows[0], replace(base.rows[1], values=values), *base.rows[2:])
    write(with_overlay(base, replace(base, environment={**base.environment, "threads": 7}, rows=rows)), path, of)
    (folder / "snapshots" / "first.yaml").write_text(FIRST_FORMAT.replace("model.yaml", "first.yaml"))
    for name in CONFIGS:
        code, text, _ = _printed("check", str(folder / f"{name}.yaml"))
        assert code == 0, text
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- mutations of a folder of snapshots


def _files(folder: Path, suffix: str = "") -> list[Path]:
    """The ordinary files, but those that are holes."""
    found = [path for path in sorted(folder.iterdir()) if path.name.endswith(suffix) and not path.is_symlink()]
    return [path for path in found if path.is_file() and path.stat().st_size < 1 << 20]


def change_text(folder: Path, drawn: random.Random) -> None:
    path = drawn.choice(_files(folder, ".yaml"))
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    for _ in range(drawn.choice((1, 1, 1, 2, 5))):
        text = changed(text, drawn)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))


def flip_bits(folder: Path, drawn: random.Random) -> None:
    path = drawn.choice(_files(folder))
    data = bytearray(path.read_bytes())
    for _ in range(drawn.choice((1, 1, 4))):
        data[drawn.randrange(len(data))] ^= 1 << drawn.randrange(8)
    if drawn.random() < 0.2:
        del data[drawn.randrange(len(data)) :]
    path.write_bytes(data)


def forge_tensors(folder: Path, drawn: random.Random) -> None:
    """Other tensors in a file of large ones or of a state, under the digest that they have, named in the text."""
    path = drawn.choice(_files(folder, ".safetensors"))
    try:
        tensors = load(path.read_bytes())
    except SafetensorError:
        return
    key = drawn.choice(sorted(tensors))
    if "state" in tensors and drawn.random() < 0.7:
        told = json.loads(tensors["state"].numpy().tobytes())
        told = put(told, drawn.choice([*places(told)]), drawn.choice(VALUES))
        tensors["state"] = torch.frombuffer(bytearray(json.dumps(told).encode()), dtype=torch.uint8)
    elif drawn.random() < 0.3:
        tensors[drawn.choice(("x", EVIL, "0123456789abcdef", "state", "t99"))] = tensors.pop(key)
    else:
        shape = drawn.choice(([0], [1], [9, 9], [81], [2, 2]))
        tensors[key] = torch.full(shape, drawn.choice((0, 1, -1)), dtype=drawn.choice((torch.float32, torch.int64)))
    content = save(tensors)
    name = f"{path.name.split('.')[0]}.{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
    text = folder / f"{path.name.split('.')[0]}.yaml"
    if text.is_file():
        text.write_bytes(text.read_bytes().replace(path.name.encode(), name.encode()))
    path.unlink()
    (folder / name).write_bytes(content)


def forge_header(folder: Path, drawn: random.Random) -> None:
    """A header that claims what is not there, before the bytes of a file of tensors or before a hole of 3 GiB."""
    path = drawn.choice(_files(folder, ".safetensors"))
    header = json.dumps(
        drawn.choice(
            (
                {"state": {"dtype": "U8", "shape": [3 << 30], "data_offsets": [0, 3 << 30]}},
                {"x": {"dtype": "F32", "shape": [1 << 62], "data_offsets": [0, 1 << 64]}},
                {"x": {"dtype": "F32", "shape": [0] * 70, "data_offsets": [0, 0]}},
                {"x": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}},
                {"x" * 5000: 1, EVIL: {"dtype": EVIL, "shape": [-1], "data_offsets": []}},
                {"__metadata__": {EVIL: EVIL}},
                [1],
            )
        )
    ).encode()
    length = drawn.choice((len(header), len(header), 0, 1 << 62, (1 << 64) - 1, 200 << 20))
    with path.open("wb") as file:
        file.write(length.to_bytes(8, "little") + header)
        if drawn.random() < 0.5:
            file.truncate(8 + len(header) + (3 << 30))


def replace_entry(folder: Path, drawn: random.Random) -> None:
    """A file, one that would be written, or the folder itself, that is something else."""
    digest = f"{drawn.getrandbits(64):016x}"
    new = (f"full.{digest}.safetensors", f".steprun-{digest}.writing", f"{EVIL}.yaml", "stats.safetensors")
    path = drawn.choice(
        (*sorted(folder.iterdir()), *sorted(folder.iterdir()), *(folder / name for name in new), folder)
    )
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
    victim = folder.parents[1] / "victim"
    make: Callable[[], object] = drawn.choice(
        (
            lambda: path.symlink_to(victim),
            lambda: path.symlink_to(victim / "precious"),
            lambda: path.symlink_to(victim / "absent"),
            lambda: path.symlink_to("/dev/zero"),
            lambda: path.symlink_to(path.name),
            lambda: path.symlink_to("stats.yaml"),
            lambda: os.mkfifo(path),
            lambda: _make_device(path),
            lambda: _make_socket(path),
            path.mkdir,
            lambda: make_sparse(path),
            lambda: _make_sparse_text(path),
            lambda: path.write_bytes(b""),
        )
    )
    make()


def _make_device(path: Path) -> None:
    """The device of endless zeros, where this process may make one; else a pipe."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        os.mkfifo(path)


def _make_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _make_sparse_text(path: Path) -> None:
    """As large as a snapshot may be, and a hole."""
    with path.open("wb") as file:
        file.write(b"format: 2\n")
        file.truncate(250 << 20)


def rename(folder: Path, drawn: random.Random) -> None:
    path = drawn.choice(sorted(folder.iterdir()))
    path.rename(
        folder / drawn.choice(("full.yaml", "stats.yaml", f"x{EVIL}.yaml", "x", "-x.yaml", "stats.safetensors"))
    )


MUTATIONS: tuple[Callable[[Path, random.Random], None], ...] = (
    *[change_text] * 8,
    *(flip_bits, flip_bits, forge_tensors, forge_tensors, forge_header, replace_entry, replace_entry, rename),
)


# --- what is wrong with how a folder is taken


def attempt(files: Files, root: Path, case: str) -> str | None:
    """Mutate a folder of snapshots and let steprun work on it; gives in words what it does that it may not."""
    drawn = random.Random(case)
    work = root / "work"
    shutil.rmtree(work, ignore_errors=True)
    for name, content in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(content)
    mutate(work / "snapshots", drawn)
    _make_victim(root)  # a mutation may have written through the link that another one made
    config = str(work / f"{drawn.choice([*CONFIGS])}.yaml")
    names = sorted(os.listdir(work))
    for words in _acts(work, config, drawn):
        wrong = _tried(words)
        if not wrong and sorted(os.listdir(work)) != names:
            wrong = "a file beside the configs was made or removed"
        if not wrong and any((work / name).read_bytes() != files[name] for name in files if "/" not in name):
            wrong = "a config was written"
        if not wrong and _listed(root / "victim") != {"precious": b"precious"}:
            wrong = "a file outside the folder was written, made or removed"
        if wrong:
            return f"{' '.join(word.replace(str(root), '') for word in words)}: {wrong}"
    return None


def _make_victim(root: Path) -> None:
    """Make the folder outside that nothing may change, anew."""
    shutil.rmtree(root / "victim", ignore_errors=True)
    (root / "victim").mkdir()
    (root / "victim" / "precious").write_text("precious")


def mutate(folder: Path, drawn: random.Random) -> None:
    for _ in range(drawn.choice((1, 1, 1, 2, 3))):
        # what an earlier mutation has made may be no file any more
        with contextlib.suppress(OSError, IndexError, ValueError):
            drawn.choice(MUTATIONS)(folder, drawn)


def _listed(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _acts(work: Path, config: str, drawn: random.Random) -> Iterator[tuple[str, ...]]:
    yield "check", config
    snapshot = work / "snapshots" / f"{Path(config).stem}.yaml"
    update = ("check", config, "--update", "--budget", "0")
    acts: tuple[tuple[tuple[str, ...], ...], ...] = (
        (update, ("holds", config)),
        (("check", config, f"--update={drawn.choice(('new', 'all'))}", "--budget", "0"),),
        (("snapshot", config, "--budget", "0"), ("holds", config)),
        (("snapshot", config, "--overlay"),),
        (("check", str(work)), ("check", str(work), "--json")),
        (("check", str(snapshot)), ("check", str(work), "--update", "--budget", "0", "-q")),
        (("show", str(snapshot)), ("show", config), ("run", str(snapshot), "--no-record")),
    )
    yield from drawn.choice(acts)


_last = 0  # the exit code of the act before


def _tried(words: Sequence[str]) -> str | None:
    global _last
    if words[0] == "holds":
        code, text, error = (0, "", None) if _last else _printed("check", *words[1:])
        return f"does not hold after it was written: {text[:300]}" if code else None
    forget_peak()
    before, began = peak(), time.thread_time()
    _last, text, error = _printed(*words)
    took, grown = time.thread_time() - began, peak() - before
    if error is not None and not isinstance(error, SteprunError):
        place = traceback.extract_tb(error.__traceback__)[-1]
        told = f"{type(error).__name__}: {str(error)[:200]} at {Path(place.filename).name}:{place.lineno}"
        return f"escaped: {told}"
    if _last not in (0, 1, 2, 3):
        return f"exit code {_last}"
    if any(unicodedata.category(char) in ("Cc", "Cf", "Cs") and char != "\n" for char in text):
        return f"a character that is no text: {text[:300]!r}"
    if _last and not any(part in text for part in ("snapshots", ".yaml", ".safetensors", "below /")):
        return f"a fault without a file: {text[:300]}"
    if took > SECONDS:
        return f"slow: {took:.1f} s"
    if grown > GROWTH:
        return f"memory: grew by {grown:.0f} MiB"
    return None


def _printed(*arguments: str) -> tuple[int, str, BaseException | None]:
    """The exit code of a command, what it prints on both streams, and the exception that it ended with."""
    out = io.StringIO()
    raised: list[BaseException] = []
    told = app.exit_code_of

    def noting(error: BaseException, meta: Any) -> int | None:
        code = told(error, meta)
        if code is not None:
            raised.append(error)
        return code

    app.exit_code_of = noting
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = steprun(list(arguments))
    finally:
        app.exit_code_of = told
    of_ours = [error for error in raised if type(error).__module__.partition(".")[0] not in ("typer", "click")]
    return code, out.getvalue(), of_ours[0] if of_ours else None


def findings(seed: str, seconds: float, first: int = 0, most: int = 1 << 62) -> Iterator[Finding]:
    """What goes wrong until the time is over; yields the number of cases at the end as a finding without words."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        (root / "victim").mkdir()
        (root / "victim" / "precious").write_text("precious")
        (root / "work").mkdir()
        files = sound(root / "work")
        began, case = time.monotonic(), first

        def try_case(number: int) -> str | None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return attempt(files, root, f"{seed} {number}")

        while time.monotonic() - began < seconds and case < most:
            last = min(case + 100, most)
            yield from tried(try_case, case, last, seconds=4 * SECONDS, room=ROOM)
            case = last
        yield Finding(case, "")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", default=str(time.time_ns()))
    parser.add_argument("--first", type=int, default=0, help="the first case")
    parser.add_argument("--cases", type=int, default=1 << 62, help="at most so many")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"seed {given.seed}", flush=True)
    bad, tries = 0, 0
    for finding in findings(given.seed, given.minutes * 60, given.first, given.first + given.cases):
        tries = finding.case
        if finding.what:
            bad += 1
            print(f"case {finding.case}: {finding.what}", flush=True)
    print(f"{tries - given.first:,} folders, {bad} findings")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
