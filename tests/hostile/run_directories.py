"""Run directories as a stranger could send them, by mutation of a real one; for as long as a person lets it run.

    python -m tests.hostile.run_directories --seconds 3600 --seed 1

Each is listed, compared, opened, read, reported and resumed. What is found is an exception that is no fault of
steprun's family, a text that tells of an internal error, or a character that would reach the terminal as something else
than text.
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
import sys
import tempfile
import time
import traceback
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import runner
from runner.cli.main import main as steprun
from tests.manifests import manifest_fields

CONFIG = """\
name: linear
parameters: {x: {shape: [3], init: ones}, b: {shape: [2, 2], init: normal}}
expression: |
  n = x[:iteration]
  loss = (x ** 2).sum() + b.sum() + n.sum()
optimizer: {adam: {lr: 0.1}}
steps: [{repeat: {times: 3, steps: [train, checkpoint]}}]
log: {state: true}
"""
EVIL = "\x1b]52;c;cHduZWQ=\x07\x9b2J\u202e\n"
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 3, 1.5, 1e300, 1 << 40, 1 << 70, -(1 << 70), float("nan"), float("inf")),
    *("text", "", EVIL, "../../victim", "/etc/passwd", "\0", [], [1], [[]], [None], {}, {"a": 1}, {"problems": [1]}),
    *({"problems": [{"message": 1}]}, [{"name": 1}], {"tensor": "t0", "complex": True}, {"list": [1]}),
)
Path_ = tuple[Any, ...]


def recorded(folder: Path) -> Path:
    """A run that was interrupted, with its checkpoints."""
    (folder / "c.yaml").write_text(CONFIG)
    run = runner.run(folder / "c.yaml", runs_dir=folder / "sound").path
    manifest = manifest_fields(run / "run.json")
    (run / "run.json").write_text(json.dumps(manifest | {"status": "interrupted"}))
    return run


def places(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """The path of every value within a value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def put(value: Any, path: Path_, new: Any) -> Any:
    """The value with another one at a path."""
    if not path:
        return new
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[path[0]] = put(changed[path[0]], path[1:], new)
    return changed


def mutate_manifest(run: Path, drawn: random.Random) -> None:
    told = manifest_fields(run / "run.json")
    (run / "run.json").write_text(json.dumps(put(told, drawn.choice([*places(told)]), drawn.choice(VALUES))))


def mutate_checkpoint(run: Path, drawn: random.Random) -> None:
    """Another value anywhere in the JSON, sealed as a sound one is."""
    path = drawn.choice(sorted((run / "checkpoints").glob("*.json")))
    told = json.loads(path.read_text())
    told.pop("digest")
    told = put(told, drawn.choice([*places(told)]), drawn.choice(VALUES))
    if isinstance(told, dict):
        told["digest"] = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    path.write_text(json.dumps(told))


def flip_bits(run: Path, drawn: random.Random) -> None:
    """One bit or a few of any file, or its end cut off."""
    path = drawn.choice(sorted(path for path in run.rglob("*") if path.is_file()))
    data = bytearray(path.read_bytes())
    for _ in range(drawn.choice((1, 1, 1, 4))):
        place = drawn.randrange(len(data))
        data[place] ^= 1 << drawn.randrange(8)
    if drawn.random() < 0.1:
        del data[drawn.randrange(len(data)) :]
    path.write_bytes(data)


def make_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3 << 30)


def replace_file(run: Path, drawn: random.Random) -> None:
    """A file or folder that has become something else."""
    path = drawn.choice(sorted(run.rglob("*")))
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    victim = run.parents[2] / "victim"
    make: Callable[[], object] = drawn.choice(
        (
            lambda: path.symlink_to(victim),
            lambda: path.symlink_to(victim / "precious"),
            lambda: path.symlink_to("/dev/zero"),
            lambda: path.symlink_to(path.name),
            lambda: os.mkfifo(path),
            path.mkdir,
            lambda: make_sparse(path),
        )
    )
    make()


MUTATIONS: dict[str, Callable[[Path, random.Random], None]] = {
    "manifest": mutate_manifest,
    "checkpoint": mutate_checkpoint,
    "bits": flip_bits,
    "file": replace_file,
}


def findings(sound: Path, run: Path) -> Iterator[str]:
    """What is wrong with how steprun takes a run directory."""
    acts: dict[str, Callable[[], object]] = {
        "runs": lambda: printed("runs", "--runs-dir", str(run.parents[1])),
        "runs --json": lambda: printed("runs", "--json", "--runs-dir", str(run.parents[1])),
        "diff": lambda: printed("diff", str(sound), str(run)),
        "open_run": lambda: read(run),
        "report": lambda: printed("report", str(run), "-o", str(run.parents[2] / "page.html")),
        "resume": lambda: printed("resume", str(run), "--quiet"),
    }
    for name, act in acts.items():
        try:
            found = act()
        except runner.SteprunError:
            continue
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            yield f"{name}: {type(error).__name__}: {str(error)[:100]} at {Path(place.filename).name}:{place.lineno}"
            continue
        if isinstance(found, str):
            if "internal error" in found:
                yield f"{name}: {found[found.index('internal error') :][:200]}"
            if any(unicodedata.category(char) in ("Cc", "Cf", "Cs") and char != "\n" for char in found):
                yield f"{name}: a character that is no text"


def printed(*arguments: str) -> str:
    """What a command prints, on both streams."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        steprun(list(arguments))
    return out.getvalue()


def read(path: Path) -> None:
    run = runner.open_run(path)
    for _ in run.rows():
        pass
    run.to_arrow()
    for column in run.columns:
        run.values(column.name)
    run._repr_html_()


def tried(mutation: str, seed: int, going_on: Callable[[int], bool]) -> tuple[int, Counter[str]]:
    """How many mutated directories were tried, and what was found."""
    drawn, found, count = random.Random(seed), Counter[str](), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        sound = recorded(folder)
        (folder / "victim").mkdir()
        (folder / "victim" / "precious").write_text("precious")
        run = folder / "runs" / "linear" / "hostile"
        while going_on(count):
            count += 1
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(sound, run)
            MUTATIONS[mutation](run, drawn)
            found.update(findings(sound, run))
            if os.listdir(folder / "victim") != ["precious"]:
                found["a file outside the run directory was made or removed"] += 1
            elif (folder / "victim" / "precious").read_text() != "precious":
                found["a file outside the run directory was written"] += 1
    return count, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="for each kind of mutation")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    total = 0
    for mutation in MUTATIONS:
        end = time.monotonic() + given.seconds
        count, found = tried(mutation, given.seed, lambda _, end=end: time.monotonic() < end)  # type: ignore[misc]
        print(f"{mutation}: {count:,} directories, {sum(found.values()):,} findings")
        for text, times in found.most_common(20):
            print(f"  {times} times: {text}")
        total += sum(found.values())
    return int(total > 0)


if __name__ == "__main__":
    sys.exit(main())
