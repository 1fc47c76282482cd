"""The versions of the libraries that compute the numbers of an engine, by which the bits of a run may differ."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Callable, Mapping

JAX = ("jax", "jaxlib")
"""The packages that compute the numbers of `engine: xla`. jax translates a step, and jaxlib has the compiler."""


def jax_versions() -> Mapping[str, str]:
    """The installed versions of JAX; empty without it. Imports none of it."""
    found = {name: _version(name, importlib.metadata.version) for name in JAX}
    return {name: version for name, version in found.items() if version is not None}


@functools.cache
def _version(name: str, read: Callable[[str], str]) -> str | None:
    """The version of a package, read once, since that takes a millisecond; None if it is not installed.

    Args:
        read: `importlib.metadata.version`, or what a test has put in its place.
    """
    try:
        return read(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def engine_versions(engine: str) -> Mapping[str, str]:
    """The versions that the bits of an engine depend on besides that of torch: those of JAX for `xla`."""
    return jax_versions() if engine == "xla" else {}


def other_versions(then: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, str] | None:
    """What two sets of versions differ in, as text: `jax 0.9.0 and jaxlib 0.9.0`, and the same of `now`.

    Args:
        then: recorded versions; one that is missing is not known, and differs from none.
    Returns:
        None if no known version differs.
    """
    names = [name for name in now if name in then and then[name] != now[name]]
    if not names:
        return None
    before, after = (" and ".join(f"{name} {versions[name]}" for name in names) for versions in (then, now))
    return before, after
