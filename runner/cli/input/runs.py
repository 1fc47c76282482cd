"""Runs on the command line: a directory, `runs/NAME/latest`, or a point of a sweep, `SWEEP#17`."""

from __future__ import annotations

import re

_POINT = re.compile(r"(.+)#([0-9]{1,9})")


def run_path(text: str) -> str:
    """The path of a run; the run directory of a point is made if it does not exist.

    Raises:
        UsageError: the sweep has no such point, or the point has no rows.
    """
    found = _POINT.fullmatch(text)
    if found is None:
        return text
    from runner.config.run_paths import SWEEP_MANIFEST, is_run, resolved_sweep

    directory = resolved_sweep(found[1])
    if not is_run(directory, SWEEP_MANIFEST):
        return text
    from runner.sweep.record.reading import open_sweep

    return str(open_sweep(directory).run(int(found[2])).path)
