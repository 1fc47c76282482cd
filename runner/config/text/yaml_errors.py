"""Explains libyaml's errors to users who wrote an expression without quotes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from yaml import MarkedYAMLError, YAMLError

from runner.config.text.source import Source, whole_file_problem
from runner.errors import Problem

QUOTE_OR_BLOCK = "quote it, or write it in block form: `|` after the key and the text indented below"
_BRACKET = re.compile(r"[()\[\]{}]")
_LONGEST_KEY = 1024
_CLOSER = {"[": "]", "{": "}", "(": ")"}
_OPENER = {closer: opener for opener, closer in _CLOSER.items()}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Fault:
    """An error of libyaml, with its places as offsets."""

    source: Source
    problem: str
    context: str
    at: int
    context_at: int

    @property
    def char(self) -> str:
        return self.source.text[self.at : self.at + 1]

    @property
    def line(self) -> str:
        return self.source.excerpt(self.source.mark(self.at).line)

    def here(self, message: str, hint: str) -> Problem:
        return self.at_place(self.at, self.at + 1, message, hint)

    def at_place(self, start: int, end: int, message: str, hint: str) -> Problem:
        return self.source.problem(start, end, message, hint)


def unbalanced(text: str) -> str | None:
    """Returns the first unmatched bracket in `text`, or None. Brackets inside quotes do not count."""
    if not _BRACKET.search(text):
        return None
    opened: list[str] = []
    quote = ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in _CLOSER:
            opened.append(char)
        elif char in _OPENER:
            if not opened or opened.pop() != _OPENER[char]:
                return char
        elif char == "#":
            break
    return opened[0] if opened else None


def explain(error: YAMLError, source: Source, shift: int) -> Problem:
    """Returns the problem for an error of libyaml, at its place.

    Args:
        shift: the number of characters before the text that libyaml parsed.
    """
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return whole_file_problem(source.name, f"not YAML: {str(error).lower()}", "rewrite the file as plain text")
    at = min(error.problem_mark.index + shift, len(source.text))
    context_at = error.context_mark.index + shift if error.context_mark else at
    fault = _Fault(source, error.problem or "", error.context or "", at, context_at)
    for pattern, explained in _TABLE:
        if re.search(pattern, f"{fault.context}: {fault.problem}"):
            return fault.here(*explained) if isinstance(explained, tuple) else explained(fault)
    return fault.at_place(at, at + 1, f"not YAML: {fault.problem}", QUOTE_OR_BLOCK)


def _unquoted_start(fault: _Fault) -> Problem:
    if fault.char == "\t":
        return _tab(fault)
    shown = "a backtick" if fault.char == "`" else f"`{fault.char}`"
    return fault.here(f"no value begins with {shown} in YAML", QUOTE_OR_BLOCK)


def _tab(fault: _Fault) -> Problem:
    return fault.here("a tab in the indentation", "indent with spaces: YAML allows no tabs there")


def _second_colon(fault: _Fault) -> Problem:
    start = fault.source.line_starts[fault.source.mark(fault.at).line - 1]
    before = fault.source.text[start : fault.at]
    key = re.match(r"\s*(?:- +)*([^\s:][^:]*?)\s*:\s", before)
    bracket = unbalanced(before)
    if len(before) > _LONGEST_KEY:
        message = f"a key longer than {_LONGEST_KEY:,} characters"
        return fault.here(message, "write it after `? ` on a line of its own, or shorten it")
    if bracket in _CLOSER:
        message = f"`{bracket}` is still open where YAML reads `: ` as the end of a key"
    elif key:
        message = f"a second `: ` in the value of `{key[1]}`"
    else:
        ended = _ended_block(fault)
        if ended is not None:
            return ended
        message = "a `: ` where no key can be: the line is indented as part of the value above it"
        return fault.here(message, "indent it like the key above, or " + QUOTE_OR_BLOCK)
    return fault.here(message, QUOTE_OR_BLOCK)


def _open_collection(fault: _Fault) -> Problem:
    opener = fault.source.text[fault.context_at : fault.context_at + 1]
    kind = "list" if opener == "[" else "mapping"
    closer = _CLOSER.get(opener, "")
    rest = fault.source.text[fault.at :].strip()
    if not rest or fault.char == "":
        message = f"this `{opener}` is never closed"
        return fault.at_place(
            fault.context_at,
            fault.context_at + 1,
            message,
            f"close it with `{closer}`, or quote the whole text",
        )
    if fault.char in _OPENER and fault.char != closer:
        message = f"`{fault.char}` where the {kind} that began with `{opener}` needs `{closer}`"
        return fault.here(message, f"close it with `{closer}`")
    if fault.char in _CLOSER:
        message = f"an unquoted expression with `{fault.char}` inside `{opener}…{closer}`"
        return fault.here(message, QUOTE_OR_BLOCK)
    if fault.char == ":":
        message = f"a second `: ` in one item of the {kind}"
        return fault.here(message, f"put `,` between items, or {QUOTE_OR_BLOCK}")
    began = fault.source.mark(fault.context_at).line
    since = f" that began on line {began}" if began != fault.source.mark(fault.at).line else ""
    message = f"the {kind}{since} needs `,` or `{closer}` here"
    return fault.here(message, f"close it with `{closer}`, or {QUOTE_OR_BLOCK}")


def _no_value(fault: _Fault) -> Problem:
    written = len(fault.source.text.rstrip())
    if fault.at >= written:
        message = "the text ends where a value should begin"
        return fault.at_place(max(0, written - 1), written, message, "close the brackets, or finish the value")
    if fault.char in _OPENER:
        return fault.here(f"`{fault.char}` closes nothing", "remove it, or " + QUOTE_OR_BLOCK)
    shown = f"`{fault.char}`" if fault.char.strip() else "the line's end"
    return fault.here(f"{shown} where a value should begin", QUOTE_OR_BLOCK)


def _no_key(fault: _Fault) -> Problem:
    start = fault.source.line_starts[fault.source.mark(fault.at).line - 1]
    before = fault.source.text[start : fault.at]
    special = re.search(r"(?:^|[:\-,\[{]\s+)([*&]\S*)\s+$", before)
    if special:
        kind = "an alias" if special[1][0] == "*" else "an anchor"
        place = start + special.start(1)
        message = f"YAML reads `{special[1]}` as {kind}, and more text follows"
        return fault.at_place(place, place + len(special[1]), message, QUOTE_OR_BLOCK)
    if re.search(r"[\"']\s*$", before):
        message = "text follows a closing quote"
        return fault.here(
            message,
            "quote the whole value, or write it in block form: `|` after the key and the text indented below",
        )
    if fault.char == ":" and not before.strip():
        return fault.here("a key is missing before `:`", "name it, or quote the text")
    if not before.strip():
        if fault.source.text.startswith("- ", fault.at):
            message = "a list item where a key of the mapping should be"
            return fault.here(message, "indent it like the lines that it belongs to")
        message = "this line's indentation matches no line above"
        return _ended_block(fault) or fault.here(message, "indent it like the lines that it belongs to")
    colon = re.match(r"\s*(?:- +)*[^\s:\"'\[{]+(:(?=[\[{])|：)", before)
    if colon:
        return _tight_colon(fault, start + colon.start(1))
    if re.search(r"[\]}]\s*$", before):
        return fault.here("text follows a closing bracket", "remove it, or quote the whole value")
    return fault.here("expected a key of the mapping here", QUOTE_OR_BLOCK)


def _tight_colon(fault: _Fault, at: int) -> Problem:
    char = fault.source.text[at]
    message = "a `:` with no space after it" if char == ":" else f"`{char}` is not the colon of YAML"
    return fault.at_place(at, at + 1, message, "put a space after `:`" if char == ":" else "write `: `")


def _ended_block(fault: _Fault) -> Problem | None:
    """The problem of a line whose block ended above, at a line that is indented less; None if no block did."""
    here = fault.source.mark(fault.at).line
    indent = _indent(fault.source.excerpt(here))
    ended = None
    for number in range(here - 1, 0, -1):
        line = fault.source.excerpt(number)
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if ended is None and _indent(line) < indent:
            ended = number
        elif ended is not None and _indent(line) <= indent:
            return _less_indented(fault, here, ended) if _indent(line) == indent else None
    return None


def _less_indented(fault: _Fault, here: int, ended: int) -> Problem:
    start = fault.source.line_starts[ended - 1]
    space = re.match(r" *([^\S ])", fault.source.excerpt(ended))
    if space:
        shown = f"U+{ord(space[1]):04X}, a space that YAML does not indent with"
        place = start + space.start(1)
        return fault.at_place(place, place + 1, f"this line begins with {shown}", "write plain spaces there")
    at = fault.source.line_starts[here - 1] + _indent(fault.source.excerpt(here))
    message = f"the block of this line ended at line {ended}, which is indented less"
    return fault.at_place(at, at + 1, message, f"indent line {ended} like this one, or this one like line {ended}")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _no_colon(fault: _Fault) -> Problem:
    line = fault.source.mark(fault.context_at).line
    text = fault.source.excerpt(line)
    end = fault.source.line_starts[line - 1] + len(text)
    block = re.match(r"\s*(?:- +)*(\w+) +([|>])[-+]?\s*$", text)
    if block:
        at = fault.source.line_starts[line - 1] + block.start(2)
        message = f"a `:` is missing between `{block[1]}` and `{block[2]}`"
        return fault.at_place(at, at + 1, message, f"write `{block[1]}: {block[2]}`")
    hint = "indent the line as part of the value above it"
    hint = f"put a space after `:`, or {hint}" if ":" in text else f"{hint}, or write `: ` after its key"
    return fault.at_place(fault.context_at, end, "a key without `: ` and a value", hint)


def _special_name(fault: _Fault) -> Problem:
    kind = "an alias" if "alias" in fault.context else "an anchor"
    char = fault.source.text[fault.context_at : fault.context_at + 1]
    return fault.at_place(fault.context_at, fault.at, f"YAML reads `{char}` as the start of {kind}", QUOTE_OR_BLOCK)


def _open_quote(fault: _Fault) -> Problem:
    quote = fault.source.text[fault.context_at : fault.context_at + 1]
    return fault.at_place(
        fault.context_at, fault.context_at + 1, f"this {quote} is never closed", f"close it with {quote}"
    )


def _escape(fault: _Fault) -> Problem:
    shown = fault.source.text[fault.at : fault.at + 2]
    hint = "write `\\\\` for a backslash, or use single quotes"
    return fault.at_place(
        fault.at, fault.at + len(shown), "an escape that YAML does not know in a double-quoted text", hint
    )


def _block_header(fault: _Fault) -> Problem:
    indicator = fault.source.text[fault.context_at : fault.context_at + 1]
    return fault.here(f"text on the line of `{indicator}`", "begin the text on the next line, indented")


def _directive(fault: _Fault) -> Problem:
    return fault.at_place(
        fault.context_at,
        fault.context_at + 1,
        "a line that begins with `%` is a YAML directive",
        "remove it: configs have no directives",
    )


_TABLE: tuple[tuple[str, Callable[[_Fault], Problem] | tuple[str, str]], ...] = (
    ("tab character", _tab),
    ("cannot start any token", _unquoted_start),
    ("mapping values are not allowed", _second_colon),
    (
        "block sequence entries are not allowed",
        ("a list item on the line of its key", "begin the list on the next line, or write `[…]`"),
    ),
    ("mapping keys are not allowed", ("YAML reads `? ` as the start of a key", QUOTE_OR_BLOCK)),
    ("flow (mapping|sequence): did not find expected ',' or", _open_collection),
    ("did not find expected node content", _no_value),
    ("scanning an? (alias|anchor)", _special_name),
    ("quoted scalar: found unexpected (end of stream|document indicator)", _open_quote),
    ("quoted scalar: ", _escape),
    ("block scalar: ", _block_header),
    ("found unexpected ':'", ("a `:` with no space after it", "put a space after `:`, or quote the text")),
    ("(directive|%|incompatible YAML)", _directive),
    ("(tag|%TAG)", ("YAML reads `!` as the start of a tag, which configs do not allow", QUOTE_OR_BLOCK)),
    ("expected (key|'-' indicator)", _no_key),
    ("could not find expected ':'", _no_colon),
    (
        "expected <document start>",
        ("text after the end of the config", "indent it like the first key; a file holds one config"),
    ),
)
"""Patterns of libyaml's errors, in order. A message and its hint mark the character that the error is at."""
