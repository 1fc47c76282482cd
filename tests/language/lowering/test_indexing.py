"""Subscripts are torch's on tensors, Python's on lists, and numbers on 1-d constants."""

from __future__ import annotations

import torch

from runner.language.graph.computation import extract
from tests.language.lowering import fault_of, lower, same, tensors, value_of
from tests.tables import over


@over(
    "text",
    [
        "x[0]",
        "x[-1]",
        "x[0, 1]",
        "x[:, 1]",
        "x[..., 0]",
        "x[None, ..., 0]",
        "x[:, None]",
        "x[1:]",
        "x[:, ::2]",
        "x[:, -2:]",
        "x[0:2, 1:3]",
        "x[[0, 1, 0]]",
        "x[:, [0, 2]]",
        "x[[0, 1], [2, 0]]",
        "x[:, k]",
        "x[k[1:]]",
        "x[x > 0]",
        "x[[True, False]]",
        "x[:, b > 0]",
        "x[n - 3:n]",
        "x[...]",
        "x[True]",
        "x.T[k]",
        "b[k][0]",
    ],
)
def test_a_tensor_is_indexed_as_torch_does(text: str) -> None:
    assert same(value_of(text), eval(text, {"n": 3}, tensors()))


@over("iteration", [1, 2])
@over("text", ["x[iteration - 1]", "x[:iteration]", "x[:, iteration]", "x[iteration - 1, ::iteration]"])
def test_a_running_scalar_may_index(text: str, iteration: int) -> None:
    expected = eval(text, {"iteration": iteration}, tensors())
    assert same(value_of(text, iteration=iteration), expected)


@over(
    ("text", "varies"),
    [
        ("x[:iteration]", True),
        ("x[:iteration] * 2", True),
        ("x[:iteration].sum()", False),
        ("zeros(iteration)", True),
        ("x[iteration - 1]", False),
        ("x * iteration", False),
        ("roll(x, iteration)", False),
        ("x[x > 0]", True),
        ("x[k[:1]]", False),
    ],
)
def test_a_shape_that_depends_on_the_iteration_or_on_data_is_known_to_vary(text: str, varies: bool) -> None:
    given = tensors() | {"x": torch.ones(3, 3)}
    (output,) = extract(lower(text, given=given), ["value"]).outputs
    assert (output.shape is None) is varies


def test_an_element_of_a_constant_is_a_number_and_where_an_operation_wants_one_a_tensor() -> None:
    assert same(value_of("c[0]"), 0.5)
    assert same(value_of("c[iteration]"), 0.25)
    assert same(value_of("k[0] + 1"), 3)
    assert same(value_of("zeros(k[0])"), torch.zeros(2))
    assert same(value_of("relu(c[0])"), torch.tensor(0.5))
    assert same(value_of("stack([c[0], c[iteration]])"), torch.tensor([0.5, 0.25]))
    assert same(value_of("x * c[1]"), tensors()["x"] * 0.25)
    assert same(value_of("1 if c[0] < 1 else 2"), 1)


def test_a_local_name_hides_the_constant() -> None:
    assert same(value_of("f(x)", {"f(c)": "c[0]"}), tensors()["x"][0])
    assert same(value_of("f(x)", {"f(a)": "c = a\nc[0]"}), tensors()["x"][0])
    assert same(value_of("f(x) if iteration > 1 else f(x)", {"f(c)": "c[1]"}), tensors()["x"][1])


def test_lists_and_tuples_are_indexed_before_the_run() -> None:
    assert same(value_of("[x, w][1]"), tensors()["w"])
    assert same(value_of("(1, 2, 3)[-1]"), 3)
    assert same(value_of("(1, 2, 3)[1:]"), (2, 3))
    assert same(value_of("x.shape[1]"), 3)
    assert same(value_of("x.max(dim=1)[1]"), tensors()["x"].max(dim=1)[1])
    assert same(value_of("chunk(x, 2)[1]"), tensors()["x"].chunk(2)[1])


@over(
    ("text", "place", "message", "hint"),
    [
        ("c[3]", (1, 0, 4), "index 3 is outside `c`, which has 3 elements", "use a smaller index"),
        (
            "c[iteration + 9]",
            (1, 0, 16),
            "`c[iteration + 9]`: index 10 is outside `c`, which has 3 elements",
            "use a smaller index",
        ),
        ("(1, 2)[2]", (1, 0, 9), "index 2 is outside `(1, 2)`, which has 2 elements", "use a smaller index"),
        ("(1, 2)[iteration]", (1, 7, 9), "this index is not fixed before the run", "index with a number"),
        (
            "x[5]",
            (1, 0, 4),
            "`x[5]`: index 5 is out of bounds for dimension 0 with size 2",
            "its tensor has the shape (2, 3)",
        ),
        (
            "x[0, 0, 0]",
            (1, 0, 10),
            "`x[0, 0, 0]`: too many indices for tensor of dimension 2",
            "its tensor has the shape (2, 3)",
        ),
        ("x[::-1]", (1, 0, 7), "`x[::-1]`: step must be greater than zero", "its tensor has the shape (2, 3)"),
        (
            "x['a']",
            (1, 2, 3),
            "`'a'` is the string 'a', and cannot be an index",
            "index with integers, slices, `...`, `None` and tensors",
        ),
        (
            "x[0, 1.5]",
            (1, 5, 3),
            "`1.5` is a number, and cannot be an index",
            "index with integers, slices, `...`, `None` and tensors",
        ),
        (
            "x[0:k]",
            (1, 4, 1),
            "`k` is a tensor of shape (3,), int64; a slice takes integers",
            "use `index_select` or `gather`",
        ),
        ("n[0]", (1, 0, 4), "`n` is a number and cannot be indexed", "index a tensor, a tuple or a list"),
        (
            "'abc'[0]",
            (1, 0, 8),
            "`'abc'` is the string 'abc' and cannot be indexed",
            "index a tensor, a tuple or a list",
        ),
    ],
)
def test_an_index_that_does_not_fit_is_told(text: str, place: tuple[int, int, int], message: str, hint: str) -> None:
    fault = fault_of(text)
    assert (fault.place.as_tuple(), fault.message, fault.hint) == (place, message, hint)
