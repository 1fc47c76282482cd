"""Calls against signatures: what passes reaches no argument outside the tables."""

from __future__ import annotations

from typing import Any

from runner.catalogue import Operation, check_call, find_method, find_operation, operations
from tests.tables import over

X = object()  # stands for a tensor


def named(name: str) -> Operation:
    operation = find_method(name[1:]) if name.startswith(".") else find_operation(name)
    assert operation is not None
    return operation


@over(
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


@over(
    ("name", "positional", "keywords", "message", "hint", "argument"),
    [
        ("relu", [X, True], {}, "`relu` takes 1 argument by position, 2 are given", "it takes input", None),
        (
            "relu",
            [X],
            {"inplace": True},
            "`relu` does not take `inplace` here: nothing is done in place",
            "give the result a name instead",
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
        (
            "softmax",
            [X],
            {"axis": 1},
            "`softmax` has no argument `axis`",
            "it takes input, dim, dtype; did you mean `dim`?",
            "axis",
        ),
        ("linalg.det", [X], {"q": 1}, "`linalg.det` has no argument `q`", "it takes A", "q"),
        (".float", [], {"q": 1}, "`.float` has no argument `q`", "it takes no arguments", "q"),
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
            "zeros",
            [2, "cuda"],
            {},
            "`size` of `zeros` is a list of integers, not a string",
            "it is `zeros(*size: int[], dtype: dtype? = None)`",
            1,
        ),
        (
            "max",
            [X, X],
            {"keepdim": True, "other": X},
            "`max` does not take these arguments together",
            "it is `max(input: Tensor)` or `max(input: Tensor, other: Tensor)` "
            "or `max(input: Tensor, dim: int, keepdim: bool = False)`",
            None,
        ),
        (
            "linalg.lstsq",
            [X, X],
            {"driver": "gelsy"},
            "`linalg.lstsq` does not take `driver='gelsy'` here: it starts from uninitialised memory and ends in other "
            "bits each time",
            "use 'gelsd'",
            "driver",
        ),
        (
            "batch_norm",
            [X, X, X],
            {"training": X},
            "`batch_norm` would write its running statistics in place",
            "pass `None` for them while training and update them by an `assign` step, or pass `training=False`",
            None,
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


@over(
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


def test_a_fault_shows_the_name_that_the_person_wrote() -> None:
    fault = check_call(named("softmax"), [X], {"q": 1}, "F.softmax")
    assert fault is not None
    assert fault.message == "`F.softmax` has no argument `q`"


def test_no_operation_takes_more_by_position_than_its_tables_say() -> None:
    for operation in operations().values():
        if not any(argument.variadic for overload in operation.overloads for argument in overload):
            assert check_call(operation, [X] * 40, {}) is not None
