"""Any text ends in a graph or a `LanguageError`; any well-formed expression in the bits that Python gives."""

from __future__ import annotations

import warnings

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from runner.language.graph.computation import extract, loggable
from runner.language.graph.lowered import Lowered
from runner.language.inference.inference import Bounds, Inference
from runner.language.lowering.lower import lower_expression, lower_statements, uses_grad
from runner.language.lowering.scope import Scope, declare_functions
from runner.language.text.faults import LanguageError
from tests.effort import tried
from tests.language.expressions import PLAUSIBLE, WELL_FORMED, python_names, tensors
from tests.language.lowering import compute, same

FUNCTIONS, _ = declare_functions({"f(a)": "a * 2", "g(a, b=1)": "u = a + b\nf(u)"})
BOUNDS = Bounds(nodes=2_000, bytes=1 << 26)


def _scope() -> Scope:
    given = tensors()
    return Scope(
        tensors=given,
        roles=dict.fromkeys(given, "constant"),
        scalars={"n": 3, "rate": 0.1, "flag": True},
        tables={"rates": tuple(given["rates"].tolist())},
        running={"iteration": 1},
        fixed={"training": True},
        functions=FUNCTIONS,
    )


def _check(fault: LanguageError, text: str) -> None:
    lines = text.split("\n")
    assert fault.message
    assert not fault.message.endswith(".")
    if fault.origin is None:
        assert 1 <= fault.place.line <= len(lines)
        assert 0 <= fault.place.column <= len(lines[fault.place.line - 1])


def _lowered(text: str, statements: bool) -> Lowered | None:
    scope = _scope()
    inference = Inference(BOUNDS, uses_grad(text, scope))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return lower_statements(text, scope, inference) if statements else lower_expression(text, scope, inference)
        except LanguageError as fault:
            _check(fault, text)
    return None


@settings(max_examples=tried(1_000, fast=40))
@given(PLAUSIBLE, st.booleans())
def test_any_text_of_the_languages_words_ends_in_a_graph_or_a_language_error(text: str, statements: bool) -> None:
    lowered = _lowered(text, statements)
    if lowered is not None:
        wanted = [name for name, value in lowered.values.items() if loggable(value)]
        extract(lowered, wanted)


@given(st.text(max_size=40), st.booleans())
def test_any_text_ends_in_a_graph_or_a_language_error(text: str, statements: bool) -> None:
    _lowered(text, statements)


@settings(max_examples=tried(1_000, fast=50))
@given(WELL_FORMED, st.sampled_from([1, 2, 3]))
def test_an_expression_gives_the_bits_that_python_gives(text: str, iteration: int) -> None:
    lowered = _lowered(text, False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = eval(text, {"__builtins__": {}}, python_names(iteration))
        except (RuntimeError, TypeError, ValueError, IndexError, ArithmeticError, AttributeError):
            return
        if lowered is None:
            return
        found = lowered.values["value"]
        if loggable(found):
            found = compute(extract(lowered, ["value"]), tensors(), iteration)[0]
    if isinstance(found, Tensor) and not isinstance(expected, Tensor):
        expected = torch.tensor(expected, dtype=found.dtype)
    assert same(found, expected), f"{text}\n{found}\n{expected}"


def test_most_generated_expressions_have_a_value() -> None:
    counts = {"value": 0, "fault": 0}

    @settings(max_examples=tried(150), database=None)
    @given(WELL_FORMED)
    def count(text: str) -> None:
        counts["fault" if _lowered(text, False) is None else "value"] += 1

    count()
    assert counts["value"] > counts["fault"]
