"""Texts of snapshots with lines changed: each kind of line, by what stands in it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

EVIL = "\x1b]52;c;cHduZWQ=\x07\x9b2J\u202e"
ABSURD = (
    *(str(2**31), str(2**62), str(2**63), str(-(2**63)), "9" * 400, "-1", "0", "1e999", "-1e999", "1e-999", "nan"),
    *("nan(0x1)", "nan(0xffffffffffffffffffff)", "inf", "-inf", ".inf", ".nan", "0x7fffffffffffffff", "1_000", "0o7"),
    *("null", "~", "true", "empty", "", "any", "2^1023", "2^-1074", "2^9999", "2^-9999", "[]", "{}", "[[[[[[]]]]]]"),
    *(
        "1,2",
        "1; 2",
        "1;; 2",
        ";",
        ", ",
        "(2, 3) 1",
        "(9999999999, 9999999999) empty",
        "()",
        "(0) empty",
        "~",
        "\u0661",
    ),
)
STRINGS = (
    *(EVIL, "\\e]52;c;x\\a\\u202E", "\\0", "../../victim/precious", "/etc/passwd", "/dev/zero", "..", ".", "a" * 5000),
    *(
        "",
        " ",
        "\ufeff",
        "\u2028",
        "`",
        "x\\ny",
        "%s",
        "{0}",
        "\U0001f600",
        "[bold red]x[/]",
        "caf\u00e9",
        "*a",
        "&a 1",
    ),
)
ENTRIES = (
    *("evil: 1", "extends: ../full.yaml", "rows: {}", "overlays: []", "restarts: []", "calibration: {}", "files: {}"),
    *(
        "? [a, b]\n: c",
        "<<: {of: x}",
        "&a b: *a",
        "!!python/object:os.system x: y",
        "- 1",
        "...",
        "---",
        "\t",
        "}",
        "'",
    ),
    *("uncertainty: {rules: 1, runs: 1}", "elements: full.yaml", "<<<<<<< ours", "# " + "x" * 200_000, "# \u202e", '"'),
)
DTYPES = ("float64", "int64", "bool", "complex64", "bfloat16", "float8_e8m0fnu", "uint64", "quint8", "complex32", "x")
SHAPES = ("[]", "[0]", "varying", "[9, 9]", "[4611686018427387904]", "[-1]", "[99999, 99999, 99999]", "[1, 1, 1, 1, 1]")

_NUMBER = re.compile(r"-?\d[\d.]*(?:e-?\d+)?")
_POWER = re.compile(r"~\S*")
_DIGEST = re.compile(r"[0-9a-f]{8,16}")
_QUOTED = re.compile(r'"[^"]*"')
_DECLARED = re.compile(r"(\w+): (\w+) (\w+) (\[.*\]|varying)$")
_VALUE = re.compile(r": (.*)$")
_KEY = re.compile(r"^( *(?:- )?)(\S[^:]*)(?=:)")
_ROW = re.compile(r"^( +)(\d+) (\S+):")
_INDENT = re.compile(r"^ *")


def _put(pattern: re.Pattern[str], make: Callable[[random.Random], str], group: int = 0) -> Change:
    """A change of one place that a pattern finds; lines without such a place stay."""

    def change(line: str, drawn: random.Random) -> str:
        found = list(pattern.finditer(line))
        if not found:
            return line
        start, end = drawn.choice(found).span(group)
        return line[:start] + make(drawn) + line[end:]

    return change


Change = Callable[[str, random.Random], str]
CHANGES: tuple[Change, ...] = (
    _put(_NUMBER, lambda drawn: drawn.choice(ABSURD)),
    _put(_POWER, lambda drawn: "~" + drawn.choice(ABSURD)),
    _put(_POWER, lambda drawn: f"~2^{drawn.randrange(-1100, 1100)},2^{drawn.randrange(-1100, 1100)}"),
    _put(_DIGEST, lambda drawn: f"{drawn.getrandbits(64):016x}"),
    _put(_QUOTED, lambda drawn: f'"{drawn.choice(STRINGS)}"'),
    _put(_QUOTED, lambda drawn: drawn.choice(ABSURD)),
    _put(_DECLARED, lambda drawn: drawn.choice(DTYPES), 3),
    _put(_DECLARED, lambda drawn: drawn.choice(SHAPES), 4),
    _put(_DECLARED, lambda drawn: drawn.choice(("value", "weight", "gradient", "state", "x")), 2),
    _put(_VALUE, lambda drawn: drawn.choice((*ABSURD, *STRINGS)), 1),
    _put(_VALUE, lambda drawn: f'"{drawn.choice((*ABSURD, *STRINGS))}"', 1),
    _put(_KEY, lambda drawn: drawn.choice((*ABSURD, *STRINGS, "of", "w", "loss", "1 start")), 2),
    _put(_ROW, lambda drawn: drawn.choice(ABSURD), 2),
    _put(_ROW, lambda drawn: drawn.choice(STRINGS), 3),
    _put(_INDENT, lambda drawn: " " * drawn.randrange(9)),
    lambda line, drawn: line + drawn.choice((" # x", EVIL, " ~0", " ~any", ", 1", "; 1", " 1", ":", "\r", "\x00")),
    lambda line, drawn: line[: drawn.randrange(len(line) + 1)],
    lambda line, drawn: f"{line}\n{line}",
    lambda line, drawn: "",
    lambda line, drawn: f"{line}\n{_INDENT.match(line)[0]}{drawn.choice(ENTRIES)}",  # type: ignore[index]
)


def changed(text: str, drawn: random.Random) -> str:
    """A snapshot's text with a line changed, moved, or doubled many times; or its end cut off."""
    lines = text.splitlines()
    at = _some_line(lines, drawn)
    how = drawn.randrange(20)
    if how == 0:
        return text[: drawn.randrange(len(text))]
    if how == 1:
        other = drawn.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    elif how == 2:
        lines.insert(at, "\n".join([lines[at]] * drawn.choice((2, 50, 3000))))
    elif how == 3:
        del lines[at : at + drawn.choice((1, 2, 8))]
    elif how == 4:
        lines[at] = drawn.choice(ENTRIES)
    else:
        lines[at] = drawn.choice(CHANGES)(lines[at], drawn)
    return "\n".join(lines) + "\n"


def _some_line(lines: list[str], drawn: random.Random) -> int:
    """A line, of the head as often as of the rows: there are many more of those."""
    head = next((number for number, line in enumerate(lines) if line.startswith("rows:")), len(lines) - 1)
    return drawn.randrange(head + 1) if drawn.random() < 0.5 else drawn.randrange(len(lines))
