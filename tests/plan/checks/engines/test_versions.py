"""The versions that the bits of an engine depend on."""

from __future__ import annotations

import importlib.metadata

import pytest

from runner.config.keys import ENGINES
from runner.plan.checks.engines.versions import engine_versions, jax_versions, other_versions
from tests.installed import pretend
from tests.tables import over


@over("engine", ENGINES)
def test_only_xla_depends_on_jax(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, jax="0.11.0", jaxlib="0.11.1")
    assert engine_versions(engine) == ({"jax": "0.11.0", "jaxlib": "0.11.1"} if engine == "xla" else {})


def test_a_package_that_is_missing_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, jax="0.11.0", jaxlib=None)
    assert jax_versions() == {"jax": "0.11.0"}
    pretend(monkeypatch, jax=None)
    assert jax_versions() == {}


def test_a_version_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(importlib.metadata, "version", lambda name: asked.append(name) or "0.11.0")
    assert jax_versions() == jax_versions() == {"jax": "0.11.0", "jaxlib": "0.11.0"}
    assert asked == ["jax", "jaxlib"]


def test_versions_differ_where_both_are_known() -> None:
    now = {"torch": "2.13.0", "jax": "0.10.2", "jaxlib": "0.10.2"}
    assert other_versions(now, now) is None
    assert other_versions({}, now) is None
    assert other_versions({"torch": "2.13.0", "python": "3.9"}, now) is None
    assert other_versions({**now, "torch": "2.12.0"}, now) == ("torch 2.12.0", "torch 2.13.0")
    both = {**now, "jax": "0.10.0", "jaxlib": "0.10.1"}
    assert other_versions(both, now) == ("jax 0.10.0 and jaxlib 0.10.1", "jax 0.10.2 and jaxlib 0.10.2")
