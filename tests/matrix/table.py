"""Prints docs/snapshot-sensitivity.md: `python -m tests.matrix.table > docs/snapshot-sensitivity.md`."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch

from runner.compare.environment import processor
from runner.compare.numbers.bounds import FACTOR
from tests.matrix.effects import Effect, effects
from tests.matrix.environments import HARSHEST
from tests.matrix.faults import FAULTS, HARMLESS, ROUNDING, UNCHANGED, Change

PAGE = Path(__file__).parents[2] / "docs" / "snapshot-sensitivity.md"

CERTAIN = 10.0
"""Times its uncertainty from which on an effect has to be found."""
SMALL = 1e-3
"""Relative change up to which a fault is small."""

_HEAD = "| config | change | largest relative change | ratio to S | found by uncertainty | found by `dtype` |"


def page(
    faults: Sequence[Effect], rounding: Sequence[Effect], harmless: Sequence[Effect], unchanged: Sequence[Effect]
) -> Iterator[str]:
    false = frozenset(effect.change.config for effect in unchanged if effect.caught_by_dtype)
    certain = [effect for effect in (*faults, *rounding) if effect.ratio > CERTAIN]
    small = [effect for effect in certain if effect.relative < SMALL]
    variables = " ".join(f"{name}={value}" for name, value in HARSHEST.variables.items())
    yield f"""# What a snapshot finds

<!-- Written by `python -m tests.matrix.table`; edit `tests/matrix/table.py` instead. -->

How small a fault can `steprun check` find on another machine? This page lists small changes of configs and says which
of them it finds. [Snapshots](snapshots.md) explains the method.

Each change edits one place of a config of `tests/matrix/configs` or of its data. The snapshot is of the config before
the edit, taken in a plain process. The edited config is checked in a process that computes with other kernels:
`{variables}`, oneDNN off and two threads. Every number there is also off by what these kernels round otherwise.

- *Largest relative change*: the largest change of a tensor in a row, as root mean square, relative to the tensor. A
  tensor of zeros has none.
- *Ratio to S*: the largest change in units of the tensor's measured uncertainty S. A change of one element counts in
  units of 2 M, where M is the largest difference of an element. Both are measured in the environment of the snapshot.
  ∞ means that an exact number changed.
- *Found by uncertainty*: `check` reports a difference. It allows {FACTOR:g} times the uncertainty, which a snapshot
  rounds up to a power of two; so a ratio from 5 to 10 may go either way.
- *Found by `dtype`*: the same with `snapshot: {{tolerance: dtype}}`, five times the tolerances of `torch.testing`.
  *Anyway* means that `dtype` also reports the config without the change: a false alarm finds nothing.

{len(certain)} changes have a ratio above {CERTAIN:g}. {_share(certain, false)}
{len(small)} of these change no tensor by {SMALL:g} of its size or more. {_share(small, false)}
Of {len(harmless)} harmless changes, uncertainty reports {_found(harmless)} and `dtype` {_alarms(harmless)}.
Of {len(unchanged)} unchanged configs, uncertainty reports {_found(unchanged)} and `dtype` {_alarms(unchanged)}.

Measured with torch {torch.__version__} on {processor().partition(" flags")[0]}.
`python -m tests.matrix.table` measures again, `pytest -m matrix tests/matrix` tests it; both take minutes.

## Faults

{_HEAD}
| --- | --- | --- | --- | --- | --- |"""
    yield from (_line(effect, false) for effect in sorted(faults, key=lambda effect: -effect.ratio))
    yield f"""
## Faults as small as rounding

No comparison between two machines can find these.

{_HEAD}
| --- | --- | --- | --- | --- | --- |"""
    yield from (_line(effect, false) for effect in rounding)
    yield f"""
## Harmless changes

Other ways to compute the same numbers: another order of a sum, a refactored expression, a fused operation. All must
hold.

{_HEAD}
| --- | --- | --- | --- | --- | --- |"""
    yield from (_line(effect, false) for effect in harmless)


def described(change: Change) -> str:
    """The first two cells of a change's line."""
    return f"| {change.config} | {change.name} |"


def _line(effect: Effect, false: Collection[str]) -> str:
    by_dtype = "anyway" if effect.change.config in false else _word(effect.caught_by_dtype)
    cells = [_number(effect.relative), _number(effect.ratio), _word(effect.caught), by_dtype]
    return " ".join([described(effect.change), *(f"{cell} |" for cell in cells)])


def _number(value: float) -> str:
    if math.isinf(value):
        return "∞"
    return f"{value:.2g}" if value < 100 or value >= 1e6 else f"{float(f'{value:.2g}'):,.0f}"


def _word(found: bool) -> str:
    return "yes" if found else "no"


def _share(of: Sequence[Effect], false: Collection[str]) -> str:
    by_dtype = _alarms([effect for effect in of if effect.change.config not in false])
    return f"Uncertainty finds {_found(of)} of them, `dtype` {by_dtype}."


def _found(of: Sequence[Effect]) -> int:
    return sum(effect.caught for effect in of)


def _alarms(of: Sequence[Effect]) -> int:
    return sum(effect.caught_by_dtype for effect in of)


def _main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = iter(effects([*FAULTS, *ROUNDING, *HARMLESS, *UNCHANGED], Path(folder)))
    groups = [list(islice(found, len(group))) for group in (FAULTS, ROUNDING, HARMLESS, UNCHANGED)]
    sys.stdout.write("\n".join(page(*groups)) + "\n")


if __name__ == "__main__":
    _main()
