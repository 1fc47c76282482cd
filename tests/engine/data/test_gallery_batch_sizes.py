"""`evaluate` of the gallery's configs: the same at batch sizes 1, 7 and whole, within rounding."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

import runner
from runner.engine.session import open_session
from runner.engine.state import initial_state
from runner.engine.steps import steps
from runner.plan.program.instructions import Action, Evaluate

GALLERY = sorted((Path(runner.__file__).parents[1] / "configs").glob("*.yaml"))
EVALUATING = [path for path in GALLERY if "evaluate:" in path.read_text(encoding="utf-8")]


def evaluated(path: Path, size: int | None) -> dict[str, torch.Tensor]:
    """The results of all `evaluate` steps of a config at its initial weights."""
    samples = {name: source.samples for name, source in runner.compile(runner.load(path)).sources.items()}
    sizes = [f"data.{name}.batch_size={min(size or count, count)}" for name, count in samples.items()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other lengths make rows of training too large for the log, and the like
        plan = runner.compile(runner.load(path, [*sizes, "log.tensors=none"]))
        state = initial_state(plan)
        session = open_session(plan, state)
        state.iterations[:] = [1] * len(state.iterations)
        for action in plan.program:
            if isinstance(action, Action) and isinstance(action.argument, Evaluate):
                steps.bind(session, action.argument, action.loops)()
    return {name: value for name, value in state.values.items() if "." in name}


@pytest.mark.slow
@pytest.mark.parametrize("path", EVALUATING, ids=lambda path: path.stem)
def test_results_of_the_gallery_do_not_depend_on_the_batch_size(path: Path) -> None:
    whole = evaluated(path, None)
    assert whole
    for size in (1, 7):
        found = evaluated(path, size)
        assert found.keys() == whole.keys()
        for name, value in whole.items():
            torch.testing.assert_close(found[name], value, msg=lambda text, name=name: f"{name}: {text}")
