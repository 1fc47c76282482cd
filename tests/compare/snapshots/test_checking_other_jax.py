"""Versions of JAX are part of the environment of a snapshot whose numbers `engine: xla` computes, and only there."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from runner.compare.snapshots.reading import read
from tests.compare.snapshotting import checked, edit, taken
from tests.compare.uncertainty.elsewhere import line_of
from tests.installed import pretend

MODEL = """\
parameters: {x: [1.5, -0.5]}
expression: f = (x ** 2).sum()
optimizer: {sgd: {lr: 0.25}}
steps: 2
engine: """
OTHER = {"jax": "0.99.1", "jaxlib": "0.99.0"}
JAX = ("jax", "jaxlib")

BY_HAND, ONE_ULP, WRONG = "    x: 0.75, -0.25", "    x: 0.75000006, -0.25", "    x: 0.76, -0.25"
"""The parameter after one step, x - 0.25 · 2x = x / 2; the next number of float32; a wrong one."""


def test_a_snapshot_of_another_engine_holds_bit_for_bit_under_any_jax(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = taken(tmp_path, MODEL + "eager\n")
    assert not {*JAX} & {*read(path)[0].environment}
    pretend(monkeypatch, **OTHER)
    assert (checked(tmp_path).status, checked(tmp_path).exact) == ("holds", True)
    edit(path, BY_HAND, ONE_ULP)
    assert checked(tmp_path).status == "differs"


@pytest.mark.slow
def test_a_snapshot_of_xla_is_compared_within_its_uncertainty_under_another_jax(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jax")
    path = taken(tmp_path, MODEL + "xla\n", runs=3)
    for name in JAX:
        assert line_of(path, f"  {name}:") == f'  {name}: "{importlib.metadata.version(name)}"'
    assert (checked(tmp_path).status, checked(tmp_path).exact) == ("holds", True)
    edit(path, BY_HAND, ONE_ULP)
    assert checked(tmp_path).status == "differs"
    for name in JAX:
        with monkeypatch.context() as patch:
            pretend(patch, **{name: OTHER[name]})
            assert (checked(tmp_path).status, checked(tmp_path).exact) == ("holds", False)
    edit(path, ONE_ULP, WRONG)
    pretend(monkeypatch, **OTHER)
    assert checked(tmp_path).status == "differs"
    assert checked(tmp_path, "differing", runs=3).status == "updated"
    assert line_of(path, BY_HAND)
    assert read(path)[0].environment.items() >= OTHER.items()
    assert (checked(tmp_path).status, checked(tmp_path).exact) == ("holds", True)


@pytest.mark.slow
def test_a_snapshot_of_xla_without_a_version_of_jax_is_one_of_another_environment(tmp_path: Path) -> None:
    """One that an earlier version took."""
    pytest.importorskip("jax")
    path = taken(tmp_path, MODEL + "xla\n")
    for name in JAX:
        edit(path, line_of(path, f"  {name}:") + "\n", "")
    edit(path, BY_HAND, ONE_ULP)
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.exact) == ("holds", False)
