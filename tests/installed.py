"""Versions of packages that are not installed."""

from __future__ import annotations

import importlib.metadata

import pytest


def pretend(patch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Let packages have other versions, as their metadata says; None: the package is missing."""
    known = importlib.metadata.version

    def version(name: str) -> str:
        found = versions[name] if name in versions else known(name)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    patch.setattr(importlib.metadata, "version", version)
