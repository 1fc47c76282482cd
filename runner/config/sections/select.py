"""Reads `select:` of a data source: which rows of the file it has."""

from __future__ import annotations

from typing import Any

from runner.config.data_models import SelectDeclaration
from runner.config.sections.faults import Faults
from runner.config.text.nodes import Path, describe

_CUTS = ("share", "fold", "from", "to")
_KEYS = frozenset(field.alias or name for name, field in SelectDeclaration.model_fields.items())
_OF_AN_ORDER = ("seed", "stratify", "group")


def read_select(written: Any, path: Path, faults: Faults) -> SelectDeclaration | None:
    """Returns the declaration; None after problems were added to `faults`. Text alone is the condition `where`."""
    if isinstance(written, str):
        return faults.build(SelectDeclaration, {"where": written}, path, within={"where": path})
    if not isinstance(written, dict) or not written:
        found = describe(written) if written != {} else "an empty mapping"
        faults.add(path, f"expected a condition or a mapping, found {found}", "write `select: {share: [0, 0.8]}`")
        return None
    before = faults.count
    for key in [key for key, value in written.items() if value is None and key in _KEYS]:
        faults.add((*path, key), f"`{key}` has no value", f"write one, or remove `{key}`", key=True)
    given = {key: value for key, value in written.items() if value is not None}
    if not given:
        return None
    declared = faults.build(SelectDeclaration, given, path)
    if declared is not None:
        _check_keys(declared, path, faults)
    return declared if faults.count == before else None


def _check_keys(declared: SelectDeclaration, path: Path, faults: Faults) -> None:
    """Reports keys that do not go together."""
    given = [SelectDeclaration.model_fields[name].alias or name for name in declared.model_fields_set]
    cuts = [key for key in _CUTS if key in given]
    ranges = [key for key in cuts if key in ("from", "to")]
    if len(cuts) > max(1, len(ranges)):
        shown = f"`{cuts[0]}` and `{cuts[1]}`"
        message = f"{shown} are two ways to select rows"
        faults.add((*path, cuts[1]), message, "keep one of `share`, `fold` and `from`/`to`", key=True)
    if "fold" in given and "of" not in given:
        faults.add((*path, "fold"), "a fold needs the number of folds", "add `of: 5`", key=True)
    for key in ("of", "held_out"):
        if key in given and "fold" not in given:
            faults.add((*path, key), f"`{key}` belongs to `fold`, which is not there", "add `fold: 0`", key=True)
    if "fold" not in given and "share" not in given:
        for key in _OF_AN_ORDER:
            if key in given:
                message = f"`{key}` has no effect without `share` or `fold`"
                faults.add((*path, key), message, "add `share: [0, 0.8]`, or remove it", key=True)
