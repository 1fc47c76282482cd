"""Text to a checked tree: what is read, what is refused, and in which words."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.language.text.faults import LanguageError, place_of, source_of
from runner.language.text.parse import (
    MAX_EXPRESSION_BYTES,
    RESERVED,
    name_fault,
    parse_expression,
    parse_header,
    parse_statements,
)
from tests.tables import over

READABLE = [
    "a + b * c - d / e // f % g ** h @ i",
    "a == b",
    "a < b <= c",
    "a & b | c ^ ~d",
    "-a + +b",
    "x[0, ..., None, 1:, ::2, :-1]",
    "[a, (b, c), []]",
    "a if b else c",
    "a and b or not c",
    "f(a, dim=1)",
    "x.T.sum(dim=0)",
    "'text'",
    "1_000 + 1e-3 + 0x10 + 1j",
    "torch.linalg.det(x)",
    "(\n  a\n  + b\n)",
    "a + \\\n b",
    "a # a comment",
]
"""Every construct that the language has."""


@over("text", READABLE)
def test_every_construct_of_the_language_is_read_as_python_reads_it(text: str) -> None:
    assert ast.dump(parse_expression(text)) == ast.dump(ast.parse(text, mode="eval").body)
    assert ast.dump(parse_statements(text)[0]) == ast.dump(ast.parse(text).body[0])


def test_statements_are_assignments_loops_and_a_value() -> None:
    text = "a = x\nb, (c, d) = f(a)\nfor i in range(n):\n  a = a * i\na"
    assert [type(statement) for statement in parse_statements(text)] == [ast.Assign, ast.Assign, ast.For, ast.Expr]


def test_lines_of_an_expression_need_no_brackets() -> None:
    assert ast.dump(parse_expression("a +\n b\n + c")) == ast.dump(ast.parse("a + b + c", mode="eval").body)


@pytest.mark.parametrize(
    ("text", "name", "line", "column"),
    [
        ("  abc + d", "abc", 1, 2),
        ("  abc +\n  d", "abc", 1, 2),
        ("  abc +\n  d", "d", 2, 2),
        ("'é' + abc", "abc", 1, 6),
        ("f('é',\n 'ü', abc)", "abc", 2, 6),
    ],
)
def test_places_are_those_of_the_text_as_written(text: str, name: str, line: int, column: int) -> None:
    node = next(each for each in ast.walk(parse_expression(text)) if isinstance(each, ast.Name) and each.id == name)
    assert place_of(node, text).as_tuple() == (line, column, len(name))
    assert source_of(node, text) == name


NOT_AVAILABLE = [
    ("lambda x: x", "a lambda is not available", "give it a name under `functions:` and call it"),
    ("[i for i in x]", "a comprehension is not available", "write a `for i in range(n):` loop, or a tensor operation"),
    (
        "sum(i for i in x)",
        "a comprehension is not available",
        "write a `for i in range(n):` loop, or a tensor operation",
    ),
    ("{i for i in x}", "a comprehension is not available", "write a `for i in range(n):` loop, or a tensor operation"),
    (
        "{i: i for i in x}",
        "a comprehension is not available",
        "write a `for i in range(n):` loop, or a tensor operation",
    ),
    ("f'{x}'", "an f-string is not available", "write a plain string"),
    ("(y := x)", "`:=` is not available", "assign the name on a line of its own"),
    ("{'a': x}", "a dictionary is not available", "pass arguments by name"),
    ("{x}", "a set is not available", "write a list"),
    ("f(*x)", "`*` before a value is not available", "write the values out"),
    ("f(**x)", "`**` before an argument is not available", "write the arguments out"),
    ("b'a'", "bytes are not available", "write a plain string"),
    ("x is None", "`is` is not available", "write `==`"),
    ("x is not None", "`is not` is not available", "write `!=`"),
    ("x in y", "`in` is not available", "compare with `==`, or use `isin`"),
    ("x not in y", "`not in` is not available", "compare with `!=`, or use `isin`"),
    ("x << 2", "`<<` is not available", "use `bitwise_left_shift`"),
    ("x >> 2", "`>>` is not available", "use `bitwise_right_shift`"),
    ("x.__class__", "`.__class__` is not available", "names that start with an underscore are private; leave it out"),
    ("x._version", "`._version` is not available", "names that start with an underscore are private; leave it out"),
    (
        "__import__('os')",
        "`__import__` is not available",
        "nothing of Python itself can be reached; `steprun ops` lists what can",
    ),
    ("é + 1", "`é` is not a name", "names are letters, digits and `_`"),
    ("9223372036854775809", "this integer is larger than 2^63", "write it as a float: `1e20`"),
    ("9" * 5000, "this integer is larger than 2^63", "write it as a float: `1e20`"),
]
"""Refused in every text: the message, and one thing to do."""

STATEMENTS = [
    ("x += 1", "an augmented assignment is not available", "write `x = x + …`"),
    ("y: int = x", "an annotation is not available", "write `name = …`"),
    ("return x", "`return` is not needed", "the last line is the value: write it alone"),
    ("if x: y", "an `if` statement is not available", "write `a if condition else b`"),
    ("match x:\n  case 1: y", "a `match` statement is not available", "write `a if condition else b`"),
    ("while x: y", "a `while` loop is not available", "write `for i in range(n):`, or a `repeat` step"),
    ("def f(x): x", "a `def` is not available here", "declare it under `functions:`"),
    ("class A: x", "a class is not available", "give it a name under `functions:` and call it"),
    ("import os", "an import is not available", "operations are called by their names: `relu(x)`, `linalg.det(x)`"),
    (
        "from os import x",
        "an import is not available",
        "operations are called by their names: `relu(x)`, `linalg.det(x)`",
    ),
    (
        "with torch.no_grad():\n  y = x",
        "a `with` block is not available",
        "write `x.detach()` where no gradient shall flow",
    ),
    ("del x", "`del` is not available", "leave the name as it is"),
    ("assert x", "`assert` is not available", "write an `expect` step"),
    ("raise x", "`raise` is not available", "write an `expect` step"),
    ("pass", "`pass` is not available", "leave the line out"),
    ("for i in range(2):\n  break\nx", "`break` is not available", "write the number of rounds in `range(n)`"),
    ("for i in range(2):\n  continue\nx", "`continue` is not available", "write `a if condition else b`"),
    ("global x", "a function writes no names but its own", "give it the value as an argument, and use what it returns"),
    ("yield x", "`yield` is not available", "the last line is the value"),
    ("yield from x", "`yield` is not available", "the last line is the value"),
    ("await x", "`await` is not available", "leave it out"),
    ("async def f(): x", "`async` is not available", "leave it out"),
    ("try:\n  x\nexcept A:\n  y", "`try` is not available", "leave it out"),
    ("a = b = x", "one assignment a line", "write `a = …` and `b = a` on two lines"),
    ("for i, j in range(3):\n  a = x\nx", "a loop has one variable", "write `for i in range(n):`"),
    ("for i in x:\n  a = x\nx", "a loop runs over `range(…)`", "write `for i in range(n):`"),
    ("for i in range(2):\n  a = x\nelse:\n  a = x\nx", "`else` after a loop is not available", "leave it out"),
    (
        "for i in range(2):\n  a = x",
        "the last line is a loop, and has no value",
        "write the value on a line of its own after it",
    ),
    (
        "x[0] = 1",
        "`x[0]` cannot be assigned",
        "assign to a plain name; nothing is changed in place (`index_put`, `where` and `cat` make new tensors)",
    ),
    (
        "x.data = y",
        "`x.data` cannot be assigned",
        "assign to a plain name; nothing is changed in place (`index_put`, `where` and `cat` make new tensors)",
    ),
    ("pi = 3", "`pi` is reserved", f"choose another name; reserved are {', '.join(sorted(RESERVED))}"),
    (
        "for nan in range(2):\n  a = x\nx",
        "`nan` is reserved",
        f"choose another name; reserved are {', '.join(sorted(RESERVED))}",
    ),
    ("", "the expression is empty", "write for instance `loss = ((x - 3) ** 2).sum()`"),
    ("# nothing", "the expression is empty", "write for instance `loss = ((x - 3) ** 2).sum()`"),
]
"""Refused among statements."""

ONE_LINE = "this is Python's expression syntax, one statement a line"
BRACKETS = "close every bracket that is opened"
SYNTAX = [
    ("x && y", 3, "`&&` is not an operator", "write `a & b` for tensors, `a and b` for scalars"),
    ("x || y", 3, "`||` is not an operator", "write `a | b` for tensors, `a or b` for scalars"),
    ("!x", 0, "`!` is not an operator", "write `~x` for tensors, `not x` for scalars"),
    ("a ? b : c", 2, "`?` is not an operator", "write `a if condition else b`"),
    ("a <> b", 2, "`<>` is not an operator", "write `!=`"),
    ("a => b", 3, "`=>` is not an operator", "write `>=`"),
    ("a =< b", 3, "`=<` is not an operator", "write `<=`"),
    ("2x", 0, "this is not a number", "write `2 * x` for a product; names do not start with a digit"),
    ("2 x", 2, "an operator or a comma is missing", "write `a * b`, `a, b` or two lines"),
    ("f(a b)", 2, "an operator or a comma is missing", "write `a * b`, `a, b` or two lines"),
    ("x +", 2, "the line ends too early", "write what is missing after its last operator"),
    ("y = ", 3, "the line ends too early", "write what is missing after its last operator"),
    ("x)", 1, "unmatched ')'", BRACKETS),
    ("x[1", 1, "'[' was never closed", BRACKETS),
    ("'abc", 0, "this string is not closed", "close it with the quote that it starts with"),
    ("a + b = 3", 0, "an assignment cannot stand here", "compare with `==`, or assign to a plain name"),
    ("x × y", 2, "the character `×` is not available here", "write `*`"),
    ("x²", 1, "the character `²` is not available here", "write `** 2`"),
    ("x → y", 2, "the character `→` is not available here", "write it with the characters of a keyboard"),
    ("`x`", 0, "a backtick is not available", "write the name alone"),
    ("x if y", 0, "`if` needs its `else`", "write `a if condition else b`"),
    ("print x", 0, "a call takes brackets", "write `f(x)`"),
    ("0777", 0, "a number does not start with a zero", "leave the zero out"),
    ("x..y", 2, "invalid syntax", ONE_LINE),
]


@over(("text", "message", "hint"), NOT_AVAILABLE + STATEMENTS)
def test_what_the_language_leaves_out_is_refused_with_one_thing_to_do(text: str, message: str, hint: str) -> None:
    with pytest.raises(LanguageError, match=re.escape(message)) as caught:
        parse_statements(text)
    assert (caught.value.message, caught.value.hint) == (message, hint)


@over(("text", "message", "hint"), NOT_AVAILABLE)
def test_an_expression_alone_is_refused_in_the_same_words(text: str, message: str, hint: str) -> None:
    with pytest.raises(LanguageError, match=re.escape(message)) as caught:
        parse_expression(text)
    assert (caught.value.message, caught.value.hint) == (message, hint)


@over(("text", "column", "message", "hint"), SYNTAX)
def test_what_cannot_be_read_is_told_at_its_place(text: str, column: int, message: str, hint: str) -> None:
    with pytest.raises(LanguageError, match=re.escape(message)) as caught:
        parse_statements(text)
    fault = caught.value
    assert (fault.place.line, fault.place.column, fault.message, fault.hint) == (1, column, message, hint)


def test_an_assignment_in_an_expression_says_so() -> None:
    with pytest.raises(LanguageError, match="an assignment cannot stand here") as caught:
        parse_expression("a = 3")
    assert caught.value.place.as_tuple() == (1, 2, 1)


@pytest.mark.parametrize("text", ["x) + (\ny", "x)\n(y", "x, y) + (z\n"])
def test_brackets_of_an_expression_cannot_close_those_around_it(text: str) -> None:
    with pytest.raises(LanguageError, match=r"does not match|unmatched"):
        parse_expression(text)


def test_indentation_that_is_off_says_where_lines_start() -> None:
    with pytest.raises(LanguageError, match="unexpected indent") as caught:
        parse_statements("a = x\n  b = a")
    assert caught.value.place.line == 2
    assert caught.value.hint == "start every line at the same column; only the body of a `for` is indented"


@over("character", ["\0", "\r", "\f", "\u200b", "\u202e", "\ud800"])
def test_characters_that_cannot_be_seen_are_refused(character: str) -> None:
    with pytest.raises(LanguageError, match=rf"the character U\+{ord(character):04X} is not available here"):
        parse_expression(f"x + {character}y")


DEEP = "the expression is nested too deeply"


@over(
    "text",
    [
        "(" * 10_000 + "x" + ")" * 10_000,
        "[" * 300 + "]" * 300,
        "-" * 10_000 + "x",
        "not " * 5_000 + "x",
        "x" + ".T" * 10_000,
        "x[" * 5_000 + "x" + "]" * 5_000,
        "x" + "[0]" * 10_000,
        "f(" * 150 + "x" + ")" * 150,
        "x**" * 5_000 + "x",
        "x if y else " * 4_000 + "x",
        "x" + "+x" * 30_000,
    ],
)
def test_nesting_is_bounded(text: str) -> None:
    for parse in (parse_expression, parse_statements):
        with pytest.raises(LanguageError, match=DEEP):
            parse(text)


def test_a_long_text_is_refused_before_it_is_read() -> None:
    with pytest.raises(LanguageError, match="the expression is longer than 64 KiB"):
        parse_statements("(" * (MAX_EXPRESSION_BYTES + 1))


def test_a_long_sum_of_a_sensible_length_is_read() -> None:
    assert parse_expression("x" + " + x" * 500)


# heads of functions


@pytest.mark.parametrize(
    ("text", "name", "arguments", "defaults"),
    [
        ("f()", "f", (), ()),
        ("f(a, b)", "f", ("a", "b"), ()),
        (" attention ( x, heads=4, p=-0.1 ) ", "attention", ("x", "heads", "p"), ("4", "-0.1")),
        ("f(a=None, b='mean', c=n / 2, d=(1, 2))", "f", ("a", "b", "c", "d"), ("None", "'mean'", "n / 2", "(1, 2)")),
    ],
)
def test_a_head_gives_name_arguments_and_defaults(
    text: str, name: str, arguments: tuple[str, ...], defaults: tuple[str, ...]
) -> None:
    header = parse_header(text)
    assert (header.name, header.arguments) == (name, arguments)
    assert tuple(map(ast.unparse, header.defaults)) == defaults


NAMED = "write `name(a, b)`: a name, and its arguments in brackets"
PLAIN_DEFAULT = "write a number, a string, `None` or a name"


@over(
    ("text", "message", "hint"),
    [
        ("f", "`f` is not the head of a function", NAMED),
        ("f(", "`f(` is not the head of a function", NAMED),
        ("1f(a)", "`1f(a)` is not the head of a function", NAMED),
        ("f(a)(b)", "`f(a)(b)` is not the head of a function", NAMED),
        ("f(a b)", "`f(a b)` is not the head of a function", NAMED),
        ("f(a, a)", "`a` is an argument twice", "rename one of them"),
        ("f(a): (x)", "`f(a): (x)` is not the head of a function", NAMED),
        ("f(a): x\ndef g(b)", "`f(a): x\ndef g(b)` is not the head of a function", NAMED),
        ("f(*a)", "a function takes plain arguments only", "leave out `*`, `**` and `/`"),
        ("f(a, /)", "a function takes plain arguments only", "leave out `*`, `**` and `/`"),
        ("f(a: int)", "a function's arguments take no annotations", NAMED),
        ("f(pi)", "`pi` is reserved", f"choose another name; reserved are {', '.join(sorted(RESERVED))}"),
        ("f(__a)", "`__a` starts with two underscores", "choose another name"),
        ("f(é)", "`é` is not a name", "names are letters, digits and `_`, and do not start with a digit"),
        ("f(a=g())", "`g()` is not available as a default value", PLAIN_DEFAULT),
        ("f(a=lambda: 1)", "`lambda: 1` is not available as a default value", PLAIN_DEFAULT),
        (
            "f(a=x.__class__)",
            "`.__class__` is not available",
            "names that start with an underscore are private; leave it out",
        ),
        ("f(a=" + "9" * 30 + ")", "this integer is larger than 2^63", "write it as a float: `1e20`"),
        ("f(" + "a" * 3000 + ")", "the head of a function is longer than 2,000 characters", NAMED),
        (
            "f(a=" + "(" * 500 + "1" + ")" * 500 + ")",
            "`f(a=" + "(" * 500 + "1" + ")" * 500 + ")` is not the head of a function",
            NAMED,
        ),
    ],
)
def test_a_head_that_is_none_is_refused(text: str, message: str, hint: str) -> None:
    with pytest.raises(LanguageError, match=re.escape(message)) as caught:
        parse_header(text)
    assert (caught.value.message, caught.value.hint) == (message, hint)


@over("name", ["x", "_x", "x1", "T", "real", "float32", "relu", "value_2"])
def test_a_name_may_be_that_of_an_operation(name: str) -> None:
    assert name_fault(name) is None


@over("name", [*sorted(RESERVED), "if", "None", "lambda", "__x", "1x", "x-y", "é", "", "x y"])
def test_reserved_and_malformed_names_are_refused(name: str) -> None:
    assert name_fault(name) is not None


@given(st.text(max_size=60))
def test_any_text_is_a_tree_or_a_language_error(text: str) -> None:
    for parse in (parse_statements, parse_expression, parse_header):
        _check_fault(_fault(parse, text), text)


TOKENS = [
    *"()[]{}=+-*/.,:;'\"#@!<>&|~^ \n\\ab01_é",
    "for ",
    "if ",
    "else ",
    "lambda ",
    "in ",
    "not ",
    "is ",
    "f'",
    ":=",
    "**",
]


@given(st.lists(st.sampled_from(TOKENS)))
def test_any_heap_of_tokens_is_a_tree_or_a_language_error(tokens: list[str]) -> None:
    text = "".join(tokens)
    for parse in (parse_statements, parse_expression, parse_header):
        _check_fault(_fault(parse, text), text)


def _fault(parse: Callable[[str], object], text: str) -> LanguageError | None:
    try:
        parse(text)
    except LanguageError as fault:
        return fault
    return None


def _check_fault(fault: LanguageError | None, text: str) -> None:
    if fault is not None:
        lines = text.split("\n")
        assert fault.message
        assert fault.hint
        assert 1 <= fault.place.line <= len(lines)
        assert 0 <= fault.place.column <= len(lines[fault.place.line - 1])
