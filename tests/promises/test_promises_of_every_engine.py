"""Promises 1 to 8, of every engine of the CPU; those of `engine: compile` in machine code. Promise 9 has its file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.nn import Parameter

import runner
from runner.engine import initial_state
from runner.engine.data.orders import order
from runner.engine.rows import Row
from runner.errors import HealthWarning
from runner.record.directory import create_run_directory
from runner.record.reading import open_run
from runner.record.resuming import resume
from tests.cli.commands import steprun
from tests.engine.running import compiled, same
from tests.promises.engines import CONFIG, ENGINES, ROWS, points, rows, shorten_regions, written
from tests.promises.test_promise_3_same_file_same_numbers import digest
from tests.promises.test_promise_4_nothing_is_silently_ignored import ERRORS
from tests.tables import over

pytestmark = pytest.mark.parametrize("engine", ENGINES)

TOLERANCES = {"eager": (0.0, 0.0), "compile": (6.5e-6, 5e-5), "xla": (6.5e-6, 5e-5)}
"""Relative and absolute; of a compiled engine those of `torch.testing`, times five for compounding."""


@pytest.fixture(autouse=True)
def short_regions(engine: str, monkeypatch: pytest.MonkeyPatch, inductor_cache: Path) -> None:
    """Regions of eight iterations."""
    shorten_regions(monkeypatch, engine)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Row]]:
    """The rows of an engine's run in this process, which compiles once for the tests that compare with it."""
    return cache(lambda engine: rows(written(tmp_path_factory.mktemp(engine), engine)))


def test_1_the_numbers_are_those_of_the_computation_written_by_hand(
    engine: str, tmp_path: Path, uninterrupted: Callable[[str], list[Row]]
) -> None:
    plan = runner.compile(runner.load(written(tmp_path, engine)))
    x, y = map(torch.from_numpy, points())
    w, b, v = (Parameter(weight.detach()) for weight in initial_state(plan).parameters.values())
    optimizer = torch.optim.Adam([w, b, v])
    rtol, atol = TOLERANCES[engine]
    found = uninterrupted(engine)
    assert len(found) == ROWS
    for t, row in enumerate(found[1:], 1):
        epoch, batch = divmod(t - 1, 3)
        chosen = order(3, "points", epoch + 1, 18)[5 * batch : 5 * batch + 5]
        optimizer.param_groups[0]["lr"] = 0.05 / t**0.5
        optimizer.zero_grad()
        loss = ((torch.tanh(x[chosen] @ w + b) @ v - y[chosen]) ** 2).mean()
        loss.backward()
        optimizer.step()
        expected = {"loss": loss, "w": w, "b": b, "v": v, "w.grad": w.grad, "v.exp_avg": optimizer.state[v]["exp_avg"]}
        for name, value in expected.items():
            torch.testing.assert_close(row[name], None if value is None else value.detach(), rtol=rtol, atol=atol)


def test_2_watching_changes_nothing(engine: str, tmp_path: Path) -> None:
    finals = []
    for text in (CONFIG, CONFIG.replace("log: {state: true}", "log: {tensors: none}")):
        plan = runner.compile(runner.load(written(tmp_path, engine, text)))
        state = initial_state(plan)
        for _ in runner.execute(plan, state):
            pass
        finals.append(state.tensors())
    watched, unwatched = finals
    assert {"w", "w.grad", "w.exp_avg", "w.step"} < set(watched)
    assert sorted(watched) == sorted(unwatched)
    assert [name for name in watched if not same(watched[name], unwatched[name])] == []


ELSEWHERE = """\
import json, os, sys
from pathlib import Path
import pytest
import runner
from tests.promises.engines import shorten_regions
from tests.promises.test_promise_3_same_file_same_numbers import digest
from tests.promises.test_promise_4_nothing_is_silently_ignored import ERRORS
from tests.tables import over
opened = set()
def hear(event, given):
    if event == "open" and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and os.path.isabs(str(given[0])):
        opened.add(given[0])  # other names are relative to an open folder, or to the working one, which stays empty
shorten_regions(pytest.MonkeyPatch(), sys.argv[1])
sys.addaudithook(hear)
run = runner.run(sys.argv[2], runs_dir=sys.argv[3])
print(json.dumps([digest(list(run.rows())), str(run.path), sorted(opened)]))
"""


@pytest.mark.slow  # promises 3 and 5 have fast ones for the eager engine
def test_3_another_process_gives_the_same_bits_and_5_writes_in_its_run_directory_alone(
    engine: str, tmp_path: Path, inductor_cache: Path, uninterrupted: Callable[[str], list[Row]]
) -> None:
    path = written(tmp_path, engine)
    before = {each.name for each in tmp_path.iterdir()}
    folders = {name: str(tmp_path / name) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "working")}
    for folder in folders.values():
        Path(folder).mkdir()
    environment = os.environ | folders | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", ELSEWHERE, engine, str(path), str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folders["working"], env=environment, check=True)
    found, run, opened = json.loads(done.stdout)
    assert found == digest(uninterrupted(engine))
    allowed = [run, os.devnull]
    if engine == "compile":  # torch's cache; and torch asks for a temporary folder, where Python tries a file
        allowed += [str(inductor_cache), folders["TMPDIR"]]
    assert [each for each in opened if not any(Path(each).is_relative_to(place) for place in allowed)] == []
    assert [list(Path(folder).rglob("*")) for folder in folders.values()] == [[], [], [], []]
    assert {each.name for each in tmp_path.iterdir()} == before | {*folders, "runs"}
    assert [each for each in (tmp_path / "runs").rglob("*") if each.is_file() and not each.is_relative_to(run)] == []


@over("what", [what for what, (text, _) in ERRORS.items() if "engine:" not in text])
def test_4_what_would_be_ignored_is_an_error(engine: str, what: str) -> None:
    text, message = ERRORS[what]
    named = f"{{engine: {engine}, {text[1:]}" if text.startswith("{") else f"engine: {engine}\n{text}"
    with pytest.raises(runner.ConfigError, match=message) as caught:
        compiled(named)
    assert all(problem.hint and problem.line for problem in caught.value.problems)


def test_4_what_an_engine_does_not_check_it_refuses(engine: str, tmp_path: Path) -> None:
    text = CONFIG + "constants: {unread: 1}\nhealth: {exploding_gradient: 1e-9}\n"
    path = written(tmp_path, engine, text.replace("times: 30", "times: 1"))
    place = f"{path}:12:10  health.exploding_gradient\n" if engine == "eager" else f"{path}:12:1  health\n"
    if engine == "eager":
        plan = runner.compile(runner.load(path))
        with pytest.warns(HealthWarning) as warned:
            list(runner.execute(plan))
        assert sorted(str(each.message).partition(" | ")[0] for each in warned) == [place + "   12"] * 3
    else:
        with pytest.raises(runner.ConfigError) as caught:
            runner.compile(runner.load(path))
        assert str(caught.value) == (
            f"{place}"
            "   12 | health: {exploding_gradient: 1e-9}\n"
            f"      | ^^^^^^ `engine: {engine}` runs many steps at once, and `health` checks each\n"
            "      = remove `health`, or write `engine: eager`"
        )
        plan = runner.compile(runner.load(path, ["health=null"]))
    assert [(each.message, each.line) for each in plan.warnings] == [("the constant `unread` is not used", 11)]


KILLED = """\
import os, signal, sys
from pathlib import Path
import pytest
import runner
from runner.record.running import run_recorded
from tests.promises.engines import shorten_regions
shorten_regions(pytest.MonkeyPatch(), sys.argv[1])
see = lambda row: os.kill(os.getpid(), signal.SIGKILL) if row.number == 21 else None
run_recorded(runner.compile(runner.load(sys.argv[2])), Path(sys.argv[3]), see=see, checkpoint_every=7)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_6_a_run_that_is_killed_resumes_to_the_bits_of_another(
    engine: str, tmp_path: Path, uninterrupted: Callable[[str], list[Row]]
) -> None:
    path = written(tmp_path, engine)
    directory = create_run_directory(tmp_path, "run", datetime.now())
    # a process of its own: neither JAX nor, in some releases, autograd works in a fork of one that has used threads
    command = [sys.executable, "-c", KILLED, engine, str(path), str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert open_run(directory).status == "killed"
    resumed = resume(directory, allowed_folders=[tmp_path])
    assert resumed.status == "finished"
    assert digest(list(resumed.rows())) == digest(uninterrupted(engine))


def test_7_what_becomes_infinite_says_where_after_the_rows_before_it(engine: str, tmp_path: Path) -> None:
    text = """\
parameters: {w: {shape: [3], init: [1.0, 2.0, 3.0]}}
expression: |
  root = sqrt(w - 0.35)
  loss = root.sum()
optimizer: {sgd: {lr: 0.2}}
steps: 30
"""
    found = runner.execute(runner.compile(runner.load(written(tmp_path, engine, text))))
    given = [next(found).path for _ in range(7)]
    assert given == ["start", *[f"repeat[{place}].train" for place in range(1, 7)]]
    with pytest.raises(runner.RunError, match=r":4:10  .*\n.*\n.*`root` is nan at \[0\], from `sqrt.*repeat\[6\]"):
        next(found)


FAULTY = CONFIG.replace("0.05 / t", "0.0501 / t")


def test_8_a_snapshot_of_the_eager_engine_holds_and_only_there(engine: str, tmp_path: Path) -> None:
    (tmp_path / "right").mkdir()
    written(tmp_path / "right", "eager").rename(tmp_path / "right" / "model.yaml")
    assert steprun("snapshot", "right/model.yaml", cwd=tmp_path).code == 0
    shutil.copytree(tmp_path / "right", tmp_path / "faulty")
    (tmp_path / "faulty" / "model.yaml").write_text(FAULTY)
    done = steprun("check", "right", "faulty", "--set", f"engine={engine}", "--json", cwd=tmp_path)
    assert done.code == 3, done.err
    found = {Path(each["name"]).parts[-2]: each for each in json.loads(done.out)["snapshots"]}
    assert {name: each["status"] for name, each in found.items()} == {"right": "holds", "faulty": "differs"}
    assert found["right"]["exact"] is (engine == "eager")
    assert "`optimizer.adam.lr`" in found["faulty"]["details"]["causes"][0]
