"""Which configs of the gallery run as lanes."""

from __future__ import annotations

import re
from pathlib import Path

import torch

import runner
from runner.config import load, overridden
from runner.plan import compile
from runner.plan.checks.engines.stackable import unstackable
from runner.sweep.lanes.chunk import NOT_SOUND, Chunk, run_chunk
from runner.sweep.points.task import Task
from runner.sweep.single import Work

ROOT = Path(runner.__file__).parent.parent
CONFIGS = ROOT / "configs"
PAGE = ROOT / "docs" / "sweeps.md"


def chunk_of(name: str, folder: Path, seeds: int = 4, overrides: tuple[str, ...] = ()) -> Chunk | str:
    """The lanes of a gallery config over some seeds, or what the plan already refuses."""
    config = load(CONFIGS / f"{name}.yaml")
    obstacle = unstackable(compile(overridden(config, list(overrides)) if overrides else config))
    if obstacle is not None:
        return obstacle.reason
    tasks = [Task(seed, (*overrides, f"seed={seed}"), str(seed), chunk=1) for seed in range(seeds)]
    torch.set_num_threads(1)
    return run_chunk(Work(config, folder), tasks, lambda: False)


def outcome_of(chunk: Chunk | str) -> str:
    """`in lanes`, or the reason against it."""
    if isinstance(chunk, str):
        return chunk
    reasons = [task.alone for task in chunk.alone if task.alone != NOT_SOUND]
    return reasons[0] if reasons else "in lanes"


def documented() -> dict[str, str]:
    """The table of the page: config → `in lanes`, or the reason against it."""
    return dict(
        re.findall(r"^\| `([\w-]+)` \| (.+?) \|$", PAGE.read_text().partition("The gallery, swept")[2], re.MULTILINE)
    )
