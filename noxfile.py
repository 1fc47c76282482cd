"""Everyday commands, in the environment that nox is installed in.

.venv/bin/pip install nox
.venv/bin/nox -s fast
"""

from __future__ import annotations

import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["fast"]


def python(session: nox.Session, *arguments: str) -> None:
    session.run(sys.executable, "-m", *arguments, external=True)


@nox.session
def fast(session: nox.Session) -> None:
    """The fast tests."""
    python(session, "pytest", "-n", "auto", "-m", "not slow", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests."""
    python(session, "pytest", "-n", "auto", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """All tests, and which lines and branches they reach; up to twice the time of `tests`."""
    python(session, "pytest", "-n", "auto", "--cov", "--cov-report=term", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """The linter, the formatter and the type checker."""
    python(session, "ruff", "check")
    python(session, "ruff", "format", "--check")
    python(session, "mypy", "--strict", "runner")


@nox.session
def regenerate(session: nox.Session) -> None:
    """What is generated from the code: catalogue, JSON Schema, architecture page, operators of `engine: xla`."""
    python(session, "tools.catalogue")
    with Path("docs/steprun.schema.json").open("w", encoding="utf-8") as schema:
        session.run(sys.executable, "-m", "runner", "schema", external=True, stdout=schema)
    python(session, "tools.architecture")
    python(session, "tools.xla_operators")


@nox.session
def benchmark(session: nox.Session) -> None:
    """The benchmarks, or those that are named: `nox -s benchmark -- W1 W5`."""
    python(session, "benchmarks", *session.posargs)
