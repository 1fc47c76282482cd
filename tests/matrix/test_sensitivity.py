"""Small faults are found in another environment than the snapshot's, and harmless changes are not taken for faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.matrix.effects import Effect, effects
from tests.matrix.faults import FAULTS, HARMLESS, ROUNDING, UNCHANGED, Change
from tests.matrix.table import CERTAIN, PAGE, SMALL, described

SHARE = 0.95
"""Of the faults whose effect exceeds `CERTAIN` times the uncertainty that have to be found."""

FEW_FAULTS = {
    "layer-norm": ("layer_norm's eps 1e-5 → 1e-6", "Adam's beta2 0.999 → 0.9989", "loss × (1 + 1e-5)"),
    "mlp-adam": ("lr off by 0.1% at step 17", "one wrong label", "weight decay of 1e-6"),
    "wide-matrix": ("one weight of 512 × 512 off by 1e-3", "tanh(1.00001 x)"),
}
FEW_HARMLESS = {
    "layer-norm": ("layer_norm written out",),
    "mlp-adam": ("addmm for a product and a sum", "log_softmax and nll_loss for cross_entropy"),
    "wide-matrix": ("a product in two parts",),
}


def chosen(changes: tuple[Change, ...], names: dict[str, tuple[str, ...]]) -> list[Change]:
    found = [change for change in changes if change.name in names.get(change.config, ())]
    assert len(found) == sum(map(len, names.values()))
    return found


def named(found: list[Effect]) -> list[str]:
    return [f"{effect.change.config}: {effect.change.name} ({effect.ratio:.3g})" for effect in found]


@pytest.mark.slow
def test_some_faults_are_found_elsewhere_and_harmless_changes_hold(tmp_path: Path) -> None:
    faults, harmless = chosen(FAULTS, FEW_FAULTS), chosen(HARMLESS, FEW_HARMLESS)
    found = effects([*faults, *harmless], tmp_path)
    assert min(effect.ratio for effect in found[: len(faults)]) > CERTAIN
    assert named([effect for effect in found[: len(faults)] if not effect.caught]) == []
    assert named([effect for effect in found[len(faults) :] if effect.caught]) == []


@pytest.mark.matrix
def test_faults_are_found_elsewhere(tmp_path: Path) -> None:
    found = effects([*FAULTS, *ROUNDING], tmp_path)
    assert sum(effect.relative < SMALL for effect in found) >= 40
    certain = [effect for effect in found if effect.ratio > CERTAIN]
    missed = [effect for effect in certain if not effect.caught]
    assert len(certain) - len(missed) >= SHARE * len(certain), named(missed)


@pytest.mark.matrix
def test_harmless_changes_hold_elsewhere(tmp_path: Path) -> None:
    assert named([effect for effect in effects([*HARMLESS, *UNCHANGED], tmp_path) if effect.caught]) == []


def test_there_are_sixty_faults_each_of_its_own() -> None:
    changes = (*FAULTS, *ROUNDING, *HARMLESS)
    assert len(FAULTS) >= 60
    assert len({change.slug for change in changes}) == len(changes)


def test_the_page_lists_every_change() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [line for change in (*FAULTS, *ROUNDING, *HARMLESS) if (line := described(change)) not in text] == []
