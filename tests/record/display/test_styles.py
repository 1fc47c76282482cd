"""The width of text with styles."""

from __future__ import annotations

import pytest

from runner.record.display.styles import BOLD, DIM, RED, styler, widest, width_of


@pytest.mark.parametrize("text", ["", "m", "loss", "a\N{GREEK SMALL LETTER ALPHA}[1m"])
@pytest.mark.parametrize("style", ["", BOLD, DIM, RED])
def test_a_style_takes_no_width(text: str, style: str) -> None:
    styled = styler(True)(text, style)
    assert width_of(styled) == len(text)
    assert width_of(f"<{styled}>{styled}") == 2 + 2 * len(text)


def test_a_style_goes_on_after_a_part_with_its_own() -> None:
    bold, dim = (lambda text: styler(True)(text, BOLD)), (lambda text: styler(True)(text, DIM))
    assert bold(f"a{dim('b')}c") == "\x1b[1ma\x1b[2mb\x1b[0m\x1b[1mc\x1b[0m"
    assert width_of(bold(f"a{dim('b')}c")) == 3
    assert widest([bold("ab"), "abc", ""]) == 3


def test_without_color_a_text_stays_as_it_is() -> None:
    assert styler(False)("loss", RED) == "loss"
