"""Calls against signatures: what passes reaches no argument outside the tables."""

from __future__ import annotations

from typing import Any

import pytest

from runner.catalogue import Operation, check_call, find_method, find_operation, operations

X = object()  # stands for a tensor


def named(name: str) -> Operation:
    operation = find_method(name[1:]) if name.startswith(".") else find_operation(name)
    assert operation is not None
    return operation


@pytest.mark.parametrize(
    ("name", "positional", "keywords"),
    [
        ("relu", [X], {}),
        ("softmax", [X, 1], {}),
        ("softmax", [X], {"dim": 1, "dtype": X}),
        ("zeros", [2, 3], {}),
        ("zeros", [(2, 3)], {}),
        ("zeros", [], {"size": (2, 3)}),
        ("sum", [X], {}),
        ("sum", [X], {"dim": 1, "keepdim": True}),
        ("max", [X, 1], {"keepdim": True}),
        ("max", [X, X], {}),
        ("einsum", ["ij,jk->ik", X, X], {}),
        ("conv2d", [X, X], {"padding": "same"}),
        ("conv2d", [X, X], {"padding": 1}),
        ("dropout", [X, 0.1, X], {}),
        ("stack", [[X, X]], {"dim": 1}),
        ("std", [X], {"dim": 1, "unbiased": False}),
        ("linalg.norm", [X, "fro"], {}),
        ("norm", [X], {"p": "fro"}),
        ("arange", [0, 10, 2], {}),
        ("batch_norm", [X, X, X, X, X], {}),
        ("batch_norm", [X, X, X], {"training": False}),
        ("batch_norm", [X, None, None], {"training": X}),
        (".view", [2, -1], {}),
        (".view", [X], {}),
        (".to", [X], {}),
        (".sum", [], {"dim": 0}),
        (".permute", [1, 0], {}),
        (".float", [], {}),
    ],
)
def test_a_call_of_pytorch_passes(name: str, positional: list[Any], keywords: dict[str, Any]) -> None:
    assert check_call(named(name), positional, keywords) is None


@pytest.mark.parametrize(
    ("name", "positional", "keywords", "message", "hint", "argument"),
    [
        (
            "relu",
            [X, True],
            {},
            "`relu` takes 1 positional argument, 2 are given",
            "it is `relu(input: Tensor)`",
            1,
        ),
        (
            "relu",
            [X],
            {"inplace": True},
            "`inplace` of `relu` is not available: nothing is done in place; give the result a name instead",
            None,
            "inplace",
        ),
        (
            "softmax",
            [X],
            {"dims": 1},
            "`softmax` has no argument `dims`",
            "it takes input, dim, dtype; did you mean `dim`?",
            "dims",
        ),
        ("linalg.det", [X], {"q": 1}, "`linalg.det` has no argument `q`", "it takes A", "q"),
        (".float", [], {"q": 1}, "`.float` has no argument `q`", "it takes none", "q"),
        ("linalg.det", [], {}, "`linalg.det` needs `A`", "it is `linalg.det(A: Tensor)`", None),
        ("relu", [X], {"input": X}, "argument `input` of `relu` is given twice", "remove one of them", "input"),
        ("t", ["a"], {}, "`input` of `t` is a tensor, not a string", "it is `t(input: Tensor)`", 0),
        (
            ".expand_as",
            [],
            {"other": "a"},
            "`other` of `.expand_as` is a tensor, not a string",
            "it is `.expand_as(other: Tensor)`",
            "other",
        ),
        (
            "batch_norm",
            [X, X, X],
            {"training": X},
            "`batch_norm` would write `running_mean` while training",
            "give None for both statistics while training, and update them by an `assign` step",
            1,
        ),
        (
            "batch_norm",
            [X, None],
            {"running_var": X, "training": True},
            "`batch_norm` would write `running_var` while training",
            "give None for both statistics while training, and update them by an `assign` step",
            "running_var",
        ),
    ],
)
def test_a_fault_says_what_is_wrong_and_one_thing_to_do(
    name: str,
    positional: list[Any],
    keywords: dict[str, Any],
    message: str,
    hint: str | None,
    argument: int | str | None,
) -> None:
    fault = check_call(named(name), positional, keywords)
    assert fault is not None
    assert (fault.message, fault.hint, fault.argument) == (message, hint, argument)


@pytest.mark.parametrize(
    ("name", "positional", "keywords"),
    [
        (".to", ["cuda"], {}),
        (".to", [], {"device": "cuda"}),
        (".to", ["cuda", X], {}),
        (".contiguous", [X], {}),
        ("zeros", [2], {"device": "meta"}),
        ("zeros", [2], {"out": X}),
        ("randn", [2], {"generator": X}),
        ("cross_entropy", [X, X, None, -100], {}),
        ("embedding", [X, X, 0, 1.0], {}),
        ("embedding", [X, X], {"max_norm": 1.0}),
        ("embedding_bag", [X, X, X, 1.0], {}),
        ("embedding", [X, X], {"sparse": True}),
        ("instance_norm", [X, X, X], {}),
        ("instance_norm", [X], {"running_mean": X}),
        ("batch_norm", [X, X, X, X, X, True], {}),
        ("batch_norm", [X, X, X, X, X, 1], {}),
        ("threshold", [X, 0.1, 20, True], {}),
        ("rrelu", [X, 0.1, 0.3, False, True], {}),
        ("dropout", [X, 0.5, True, True], {}),
        ("softmax", [X, 1, 3, X], {}),
        ("triplet_margin_with_distance_loss", [X, X, X], {"distance_function": X}),
        ("gather", [X, 0, X], {"sparse_grad": True}),
        ("tensor", [[1]], {"requires_grad": True}),
        ("tensor", ["abc"], {}),
        ("multinomial", [X, 2, True, X], {}),
        ("torch.rrelu", [X, 0.1, 0.3, False, X], {}),
    ],
)
def test_a_denied_argument_cannot_be_smuggled_in(name: str, positional: list[Any], keywords: dict[str, Any]) -> None:
    assert check_call(named(name), positional, keywords) is not None


def test_no_operation_takes_more_by_position_than_its_tables_say() -> None:
    for operation in operations().values():
        if not any(argument.variadic for overload in operation.overloads for argument in overload):
            assert check_call(operation, [X] * 40, {}) is not None
