"""Reads the `snapshot` section: what a snapshot stores, and the tolerances that it is compared with."""

from __future__ import annotations

from typing import Any

from runner.config.record_models import SnapshotDeclaration, ToleranceDeclaration, UncertaintyDeclaration
from runner.config.sections.faults import Faults
from runner.config.text.nodes import Path, describe

TENSORS_KEPT = ("full", "stats", "digest")
TOLERANCES = ("bitwise", "dtype")
_NOUNS = {"tensors": "choice", "tolerance": "tolerance"}
_FORMS = "write `dtype`, `{rtol: 1e-5}` or `{ulp: 4}`"


def read_snapshot(written: Any, faults: Faults) -> SnapshotDeclaration:
    """Returns the `snapshot` section with short forms expanded, or the default if it is missing or not valid."""
    if written is None:
        return SnapshotDeclaration()
    if not isinstance(written, dict):
        faults.add(("snapshot",), f"expected a mapping, found {describe(written)}", "write `snapshot: {rtol: 1e-5}`")
        return SnapshotDeclaration()
    path: Path = ("snapshot",)
    values = dict(written)
    _check_word(values.get("tensors"), (*path, "tensors"), TENSORS_KEPT, faults)
    _check_tolerance(values, path, faults)
    if "uncertainty" in values:
        values["uncertainty"] = _uncertainty(values["uncertainty"], (*path, "uncertainty"), faults)
    tolerances = values.pop("tolerances", None)
    if tolerances is not None:
        values["tolerances"] = _by_glob(tolerances, (*path, "tolerances"), faults)
    return faults.build(SnapshotDeclaration, values, path) or SnapshotDeclaration()


def _uncertainty(written: Any, path: Path, faults: Faults) -> UncertaintyDeclaration | None:
    """Returns the declaration, or None for `false`."""
    if written is False:
        return None
    if written is None or written is True:
        return UncertaintyDeclaration()
    if not isinstance(written, dict):
        hint = "write `false`, or `{runs: 8, factor: 5}`"
        faults.add(path, f"expected a mapping, found {describe(written)}", hint)
        return None
    return faults.build(UncertaintyDeclaration, written, path) or UncertaintyDeclaration()


def _by_glob(written: Any, path: Path, faults: Faults) -> dict[str, ToleranceDeclaration]:
    if not isinstance(written, dict):
        faults.add(path, f"expected a mapping, found {describe(written)}", 'write `{"*.grad": {rtol: 1e-4}}`')
        return {}
    found = {}
    for pattern, value in written.items():
        place = (*path, pattern)
        if isinstance(value, str):
            value = {"tolerance": value}
        if not isinstance(value, dict) or not value:
            faults.add(place, f"expected a tolerance, found {describe(value) if value else 'nothing'}", _FORMS)
            continue
        _check_tolerance(value, place, faults)
        built = faults.build(ToleranceDeclaration, value, place)
        if built is not None:
            found[pattern] = built
    return found


def _check_tolerance(values: dict[str, Any], path: Path, faults: Faults) -> None:
    _check_word(values.get("tolerance"), (*path, "tolerance"), TOLERANCES, faults)
    given = [key for key in ("tolerance", "ulp", "rtol", "atol") if values.get(key) is not None]
    if len(given) > 1 and given != ["rtol", "atol"]:
        shown = " and ".join(f"`{key}`" for key in given)
        faults.add(
            (*path, given[-1]), f"{shown} cannot be combined", "keep one; `rtol` and `atol` go together", key=True
        )


def _check_word(written: Any, path: Path, words: tuple[str, ...], faults: Faults) -> None:
    if isinstance(written, str) and written not in words:
        hint = f"write {' or '.join(f'`{word}`' for word in words)}"
        faults.add(path, f"there is no {_NOUNS[str(path[-1])]} `{written}`", hint)
