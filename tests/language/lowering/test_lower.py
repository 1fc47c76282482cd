"""What an expression gives is, bit for bit, what the same text gives as PyTorch."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from runner.language.inference.inference import Bounds, Inference
from runner.language.lowering.lower import lower_expression
from runner.language.text.faults import LanguageError
from tests.language.lowering import fault_of, lower, same, scope, tensors, value_of
from tests.tables import over

Named = dict[str, Tensor]

VALUES: list[tuple[str, Callable[[Named], Any]]] = [
    # statements
    ("y = x + 1\ny * 2", lambda t: (t["x"] + 1) * 2),
    ("y = x\ny = y * 2\ny = y + 1\ny", lambda t: t["x"] * 2 + 1),
    ("p, q = chunk(x, 2)\np - q", lambda t: t["x"].chunk(2)[0] - t["x"].chunk(2)[1]),
    ("a, (p, q) = x, (w, 3)\np * q", lambda t: t["w"] * 3),
    ("[p, q] = x\np + q", lambda t: t["x"][0] + t["x"][1]),
    ("v, i = x.max(dim=1)\nv * i", lambda t: t["x"].max(dim=1)[0] * t["x"].max(dim=1)[1]),
    ("y = x\nfor i in range(3):\n  y = y * 2 + i\ny", lambda t: ((t["x"] * 2 + 0) * 2 + 1) * 2 + 2),
    ("y = x\nfor i in range(n, 0, -1):\n  y = y * i\ny", lambda t: t["x"] * 3 * 2 * 1),
    ("y = x\nfor i in range(2):\n  for j in range(i, 2):\n    y = y + i * 10 + j\ny", lambda t: t["x"] + 0 + 1 + 11),
    ("y = x\nfor i in range(0):\n  y = y * 0\ny", lambda t: t["x"]),
    ("for i in range(2):\n  i = i + 1\n  y = x * i\ny", lambda t: t["x"] * 2),
    ("y = x * 2", lambda t: t["x"] * 2),
    ("value = x * 2", lambda t: t["x"] * 2),
    # names that are values, whatever operations are called
    ("t = x * 2\nt.sum()", lambda t: (t["x"] * 2).sum()),
    ("relu = x * 2\nrelu(relu)", lambda t: F.relu(t["x"] * 2)),
    ("torch = x\ntorch.sum()", lambda t: t["x"].sum()),
    ("F = x\nF.sum()", lambda t: t["x"].sum()),
    ("sum = x\nsum.sum() + torch.sum(sum)", lambda t: t["x"].sum() + t["x"].sum()),
    # displays and fixed values
    ("stack([x, x + 1])", lambda t: torch.stack([t["x"], t["x"] + 1])),
    ("cat((x, x), dim=1)", lambda t: torch.cat((t["x"], t["x"]), dim=1)),
    ("tensor([1, n, 2.5])", lambda t: torch.tensor([1, 3, 2.5])),
    ("tensor([[1, 2], [3, n]])", lambda t: torch.tensor([[1, 2], [3, 3]])),
    ("x * pi + inf", lambda t: t["x"] * torch.pi + torch.inf),
    ("x * math.pi", lambda t: t["x"] * torch.pi),
    ("x * torch.pi", lambda t: t["x"] * torch.pi),
    ("x * 1j", lambda t: t["x"] * 1j),
    ("x * -inf", lambda t: t["x"] * -torch.inf),
    ("x * nan", lambda t: t["x"] * torch.nan),
    ("x * 1e400", lambda t: t["x"] * 1e400),
    # attributes and dtypes
    ("x.T @ x", lambda t: t["x"].T @ t["x"]),
    ("x.mT", lambda t: t["x"].mT),
    ("z.real + z.imag", lambda t: t["z"].real + t["z"].imag),
    ("zeros(x.shape[0], x.shape[1] * 2)", lambda t: torch.zeros(2, 6)),
    ("x.reshape(x.shape[::-1])", lambda t: t["x"].reshape(3, 2)),
    ("x.reshape(-1, x.size(0))", lambda t: t["x"].reshape(-1, 2)),
    ("zeros(x.numel() + x.dim() + x.ndim)", lambda t: torch.zeros(10)),
    ("zeros(len(x), len([1, 2, 3]))", lambda t: torch.zeros(2, 3)),
    ("b.to(float64)", lambda t: t["b"].to(torch.float64)),
    ("b.to(torch.bfloat16)", lambda t: t["b"].to(torch.bfloat16)),
    ("zeros(2, dtype=b.dtype)", lambda t: torch.zeros(2, dtype=torch.float32)),
    ("b.to(int)", lambda t: t["b"].to(int)),
    ("zeros(2, dtype=float)", lambda t: torch.zeros(2, dtype=float)),
    ("zeros(2, dtype=bool)", lambda t: torch.zeros(2, dtype=bool)),
    ("zeros(2, dtype=torch.int)", lambda t: torch.zeros(2, dtype=torch.int)),
    ("sort(b).values - sort(b).indices", lambda t: torch.sort(t["b"]).values - torch.sort(t["b"]).indices),
    ("x.sum(dim=1, keepdim=True)", lambda t: t["x"].sum(dim=1, keepdim=True)),
    ("softmax(x, dim=-1)", lambda t: F.softmax(t["x"], dim=-1)),
    ("F.gelu(x, approximate='tanh')", lambda t: F.gelu(t["x"], approximate="tanh")),
    ("torch.nn.functional.relu(x)", lambda t: F.relu(t["x"])),
    ("torch.linalg.vector_norm(x)", lambda t: torch.linalg.vector_norm(t["x"])),
    ("linalg.det(x @ w)", lambda t: torch.linalg.det(t["x"] @ t["w"])),
    ("special.erf(x)", lambda t: torch.special.erf(t["x"])),
    ("fft.fft(b).abs()", lambda t: torch.fft.fft(t["b"]).abs()),
    ("einsum('ij,jk->ik', x, w)", lambda t: torch.einsum("ij,jk->ik", t["x"], t["w"])),
    ("cross_entropy(x, k[:2], reduction='sum')", lambda t: F.cross_entropy(t["x"], t["k"][:2], reduction="sum")),
]


@over(("text", "expected"), VALUES)
def test_a_text_gives_what_pytorch_gives(text: str, expected: Callable[[Named], Any]) -> None:
    assert same(value_of(text), expected(tensors()))


@pytest.mark.parametrize(
    ("text", "expected"), [("n * 2", 6), ("x.shape", (2, 3)), ("x.dtype == float32", True), ("'a'", "a")]
)
def test_what_is_fixed_is_known_before_the_run(text: str, expected: object) -> None:
    lowered = lower(text)
    assert lowered.values["value"] == expected
    assert not [node for node in lowered.graph.nodes if node.op != "placeholder"]


def test_factories_make_tensors_in_the_configs_dtype() -> None:
    for text in (
        "zeros(2)",
        "ones(2)",
        "eye(2)",
        "full((2,), 0.5)",
        "linspace(0, 1, 3)",
        "randn(2)",
        "arange(0.0, 1.0)",
    ):
        assert value_of(text, dtype=torch.float64).dtype == torch.float64
    for text in ("arange(3)", "tensor([1, 2])", "full((2,), 1)", "randperm(3)"):
        assert value_of(text, dtype=torch.float64).dtype == torch.int64


def test_only_what_is_random_draws_numbers() -> None:
    assert lower("x * randn(3)").random
    assert not lower("x * 2").random


def test_inference_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    lower("dropout(x, 0.5) + randn(3)")
    assert torch.equal(torch.randn(3), expected)


def test_the_last_statement_is_the_value_and_every_name_is_kept() -> None:
    lowered = lower("h = x * 2\nv, i = h.max(dim=1)\nloss = v.sum()")
    assert list(lowered.values) == ["h", "v", "i", "loss"]
    assert lowered.result == "loss"


def test_names_of_generated_code_cannot_be_taken() -> None:
    names = [
        "self",
        "torch",
        "forward",
        "v_x",
        "getattr",
        "add",
        "c0",
        "inf_",
        "device",
        "placeholder",
        "output",
        "a" * 300,
    ]
    given = {name: torch.full((2,), float(index)) for index, name in enumerate(names)}
    for index, name in enumerate(names):
        found = value_of(f"{name} + {name} * 2 - {name}.sum()", given=given)
        assert torch.equal(found, torch.full((2,), float(index)))
        found = value_of(f"{name}_ = x0 * 2\n{name}_ + x0", given={"x0": torch.ones(2)})
        assert torch.equal(found, torch.full((2,), 3.0))


SHAPE = "its tensor has the shape (2, 3)"


# bounds

DOUBLING = {f"f{i}(a)": f"f{i + 1}(a) + f{i + 1}(a)" for i in range(40)} | {"f40(a)": "a"}


@over(
    ("text", "declarations", "message"),
    [
        ("y = x\nfor i in range(90):\n  y = y + 1 + i\ny", {}, "more than 99 operations"),
        ("f0(x)", DOUBLING, "more than 99 operations"),
        ("f0(1) * x", DOUBLING, "more than 99 operations"),
        ("y = (1, 1)\nfor i in range(90):\n  y = (y, y)\nx", {}, "takes too long to expand"),
        ("y = [1]\nfor i in range(90):\n  y = y + [y]\nx", {}, "takes too long to expand"),
        ("for i in range(90):\n  for j in range(90):\n    y = 1\nx", {}, "more than 99 operations"),
        ("y = x\nfor i in range(50):\n  y = x if iteration > i else y\ny", {}, "takes too long to expand"),
    ],
)
def test_what_would_grow_without_end_is_refused(text: str, declarations: dict[str, str], message: str) -> None:
    fault = fault_of(text, declarations, bounds=Bounds(nodes=99))
    assert message in fault.message
    assert fault.hint


def test_lists_within_lists_are_bounded() -> None:
    assert fault_of("y = (x,)\nfor i in range(35):\n  y = (y,)\nx").message == "lists are nested too deeply"


@pytest.mark.parametrize("body", ["-" * 90 + "f{}(a)", "f{}(a)"])
def test_functions_within_functions_are_bounded(body: str) -> None:
    declarations = {f"f{i}(a)": body.format(i + 1) for i in range(200)} | {"f200(a)": "a"}
    fault = fault_of("f0(x)", declarations)
    assert "too deeply" in fault.message


def test_a_tensor_beyond_the_limit_is_refused_before_it_is_used() -> None:
    fault = fault_of("ones(1).expand(10 ** 6) * 2", bounds=Bounds(bytes=1 << 20))
    assert fault.message == (
        "`ones(1).expand(10 ** 6)`: the result has shape (1000000,): 3.8 MiB, more than the limit of 1.0 MiB"
    )
    assert fault.hint == "raise it with --max-memory"


def test_polynomials_of_tensors_are_not_computed_to_find_their_shape() -> None:
    degree = torch.full((2, 3), 5000.0)
    lowered = lower("special.laguerre_polynomial_l(x, d)", given={"x": torch.rand(2, 3), "d": degree})
    assert same(lowered.values["value"].meta["example"], torch.zeros(2, 3))


def test_eigenvalues_of_what_is_not_finite_are_an_error_and_not_the_end_of_the_process() -> None:
    fault = fault_of("linalg.eigvals(x @ w / 0 * 0)")
    assert "eigvals: the matrix holds an infinity or a NaN" in fault.message
    assert same(value_of("linalg.eigvals(x @ w)"), torch.linalg.eigvals(tensors()["x"] @ tensors()["w"]))


def test_distances_between_no_rows_are_an_error_and_not_the_end_of_the_process() -> None:
    assert "pdist: there are no rows" in fault_of("pdist(zeros(0, 3))").message
    assert same(value_of("pdist(x)"), F.pdist(tensors()["x"]))


# expressions about the state of a run


def test_fields_of_tensors_are_read_where_the_scope_has_them() -> None:
    given = tensors()
    found = scope(given, fields={"x.grad": torch.ones(2, 3), "x.exp_avg": torch.zeros(2, 3)}, writable=False)
    lowered = lower_expression("x - 0.1 * x.grad / (x.exp_avg + 1)", found, Inference())
    assert {node.meta["input"] for node in lowered.graph.nodes if node.op == "placeholder"} == {
        "x",
        "x.grad",
        "x.exp_avg",
    }


def test_an_expression_alone_takes_no_statements() -> None:
    with pytest.raises(LanguageError, match=re.escape("an assignment is not available here")):
        lower_expression("y = x", scope(tensors()), Inference())
