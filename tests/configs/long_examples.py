"""The examples that take a second and more, where the others take a tenth.

That each runs and that its expectations hold is a fast test; what runs them again and again is slow.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

LONG_EXAMPLES = ("gan", "oscillator-equation", "rosenbrock", "transformer")


def marked(names: Iterable[str]) -> list[Any]:
    """The names for `pytest.mark.parametrize`, those of long examples marked slow."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in LONG_EXAMPLES else name for name in names]
