"""Keeps comments and blank lines that people write into a snapshot, when it is written again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

Place = tuple[str, ...]
"""The path of keys to a line, including its own."""

_LINE = re.compile(r"(?P<indent> *)(?P<item>- )?(?P<key>.+?)(?::(?: .*)?)?")
_QUOTED = re.compile(r"""[^"'#]+: (?:"(?:[^"\\]|\\.)*"|'[^']*')""")
_COMMENT = re.compile(r"\s+#.*")


@dataclass(slots=True)
class _Notes:
    """The comments of one line."""

    above: list[str] = field(default_factory=list)
    trailing: str = ""  # with the whitespace before it


def annotated(text: str, old: str) -> str:
    """The text of a snapshot with the comments of an older one, each at the line with the same keys.

    steprun writes the first line of both. Comments of removed lines are dropped.
    """
    notes = _notes(old)
    if not notes:
        return text
    head, *lines = text.splitlines()
    written = [head]
    for place, line in _placed(lines):
        found = notes.get(place, _Notes())
        written += [*found.above, line + found.trailing]
    return "\n".join(written) + "\n"


def _notes(text: str) -> Mapping[Place, _Notes]:
    notes: dict[Place, _Notes] = {}
    above: list[str] = []
    for place, line in _placed(text.splitlines()[1:]):
        if not place:
            above.append(line)
            continue
        trailing = _trailing(line)
        if above or trailing:
            notes[place] = _Notes(above, trailing)
            above = []
    return notes


def _placed(lines: list[str]) -> Iterator[tuple[Place, str]]:
    """Each line with its place; a comment or a blank line has an empty place."""
    above: list[tuple[int, str]] = []
    items = 0
    for line in lines:
        content = line.strip()
        if not content or content.startswith("#"):
            yield (), line
            continue
        found = _LINE.fullmatch(line)
        assert found is not None
        indent, key = len(found["indent"]), found["key"]
        if found["item"]:
            items += 1
            key = f"{items} {key}"
        while above and above[-1][0] >= indent:
            above.pop()
        above.append((indent, key))
        yield tuple(key for _, key in above), line


def _trailing(line: str) -> str:
    quoted = _QUOTED.match(line)
    found = _COMMENT.search(line, quoted.end() if quoted else 0)
    return found[0] if found else ""
