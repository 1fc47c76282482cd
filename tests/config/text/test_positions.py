"""Places in a text value, mapped back through quotes, escapes, folding and indentation."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from runner.config.limits import Limits
from runner.config.text.compose import compose
from runner.config.text.nodes import MapNode, ScalarNode
from runner.config.text.positions import place_within, value_offsets
from runner.config.text.source import text_source
from runner.errors import ConfigError
from tests.effort import tried
from tests.tables import over

LIMITS = Limits()


def scalar(text: str) -> ScalarNode:
    """The value of the key `e` in a text."""
    node = compose(text_source(text, Path(), "a.yaml", LIMITS), LIMITS, [])
    assert isinstance(node, MapNode)
    value = node.entries["e"].value
    assert isinstance(value, ScalarNode)
    return value


def place(text: str, line: int, column: int, width: int) -> tuple[int, int, str]:
    """Line and column in the file, and the characters that are covered."""
    node = scalar(text)
    start, end = place_within(node, line, column, width)
    mark = node.source.mark(start)
    return mark.line, mark.column, node.source.text[start:end]


@over(
    ("text", "at", "expected"),
    [
        ("e: f = x + bad", (1, 8, 3), (1, 12, "bad")),
        ("a: 1\ne: 'f = x + bad'", (1, 8, 3), (2, 13, "bad")),
        ("e: 'it''s bad'", (1, 5, 3), (1, 11, "bad")),
        (r'e: "a\tb \u00e9 bad"', (1, 6, 3), (1, 17, "bad")),
        (r'e: "x\nbad"', (2, 0, 3), (1, 8, "bad")),
        ('e: "one \\\n   two bad"', (1, 8, 3), (2, 8, "bad")),
        ("e: |\n  h = x\n  f = bad\n", (2, 4, 3), (3, 7, "bad")),
        ("e: |-  # note\n\n    h = x\n\n      f = bad", (4, 6, 3), (5, 11, "bad")),
        ("e: |2\n    h = bad\n", (1, 6, 3), (2, 9, "bad")),
        ("e: |+\r\n  h\r\n  bad\r\n\r\n", (2, 0, 3), (3, 3, "bad")),
        ("e: >\n  one\n  two bad\n", (1, 8, 3), (3, 7, "bad")),
        ("e: >\n  one\n\n  two\n    bad\n  end\n", (3, 2, 3), (5, 5, "bad")),
        ("e: one\n  two\n\n  three bad", (2, 6, 3), (4, 9, "bad")),
        ("e: 'one\n\n  bad'", (2, 0, 3), (3, 3, "bad")),
        ("é: é\ne: ééé + bad", (1, 6, 3), (2, 10, "bad")),
        ("e: &name f = bad", (1, 4, 3), (1, 14, "bad")),
        ("e: {b: 1}\nq: 1".replace("{b: 1}", '"{b}"'), (1, 1, 1), (1, 6, "b")),
    ],
)
def test_a_place_in_a_value_is_found_in_its_file(
    text: str, at: tuple[int, int, int], expected: tuple[int, int, str]
) -> None:
    assert place(text, *at) == expected


def test_a_place_past_the_end_is_the_end() -> None:
    assert place("e: abc\n", 1, 99, 5)[:2] == (1, 7)
    assert place("e: |\n  abc\n", 9, 0, 1)[0] >= 2


def test_a_number_is_marked_as_it_was_written() -> None:
    assert place("e: 1_000\n", 1, 2, 1) == (1, 6, "0")


def test_a_wide_place_ends_where_its_text_ends() -> None:
    assert place(r'e: "a\tb c"', 1, 0, 3) == (1, 5, r"a\tb")


CONTENT = st.text("ab =#:-'\"\\\té\n .", max_size=30)


@st.composite
def written(draw: st.DrawFn) -> str:
    """A document whose key `e` is a scalar in one of the styles; not always a valid one."""
    content = draw(CONTENT)
    indent = draw(st.integers(1, 4))
    lines = "\n".join(
        " " * indent + line if draw(st.booleans()) or line.strip() else line for line in content.split("\n")
    )
    style = draw(st.sampled_from(["plain", "'", '"', "|", ">", "|-", ">-", "|+", ">+", f"|{indent}", f">{indent}-"]))
    end = draw(st.sampled_from(["", "\n", "\n\n", "\nz: 1\n"]))
    if style == "plain":
        return f"e: {lines.lstrip()}{end}"
    if style == "'":
        return "e: '" + lines.replace("'", "''") + "'" + end
    if style == '"':
        return 'e: "' + lines.replace("\\", r"\t").replace('"', r"\"") + '"' + end
    return f"e: {style}\n{lines}{end}"


@settings(max_examples=tried(600))
@given(written(), st.sampled_from(["\n", "\r\n", "\r"]))
def test_every_character_of_every_style_is_placed(text: str, line_break: str) -> None:
    try:
        node = scalar(text.replace("\n", line_break))
    except (ConfigError, KeyError, AssertionError):
        return
    if not isinstance(node.value, str):
        return
    offsets = value_offsets(node)
    assert offsets is not None
    assert len(offsets) == len(node.value) + 1
    assert offsets == sorted(offsets)
    for char, offset in zip(node.value, offsets, strict=False):
        found = node.source.text[offset]
        if char not in " \n":  # those may be folded line breaks
            assert found == char or (node.style == '"' and found == "\\")
