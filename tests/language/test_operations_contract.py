"""One contract for the whole catalogue: an expression gives, bit for bit, what the direct call of torch gives.

Driven by PyTorch's own operator database and its sample inputs: values, gradients, and that no argument is written.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.testing._internal.common_methods_invocations import op_db

from runner.language.graph.computation import extract
from runner.language.inference.inference import Inference
from runner.language.lowering.lower import lower_statements
from runner.language.lowering.scope import Scope
from tests.effort import tried
from tests.language.bits import leaves, like, requires_grad, same, target
from tests.language.samples import UNREACHABLE, Said, initial, said_samples
from tests.tables import over

FOLDER = Path(__file__).parent
DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128, torch.int64, torch.bool, torch.bfloat16)
SAMPLES = tried(8, fast=2)
SEED = 42  # the database's own, where an operation draws

PINNED = re.search(r"^torch==(\S+)", (FOLDER.parents[1] / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)[
    1
]  # type: ignore[index]
NOT_IN_EVERY_RELEASE = {"torch.ops.aten._scaled_dot_product_flash_attention_for_cpu"}  # of torch: in 2.14's database
NAMES = sorted({entry.name for entry in op_db})
REACHED = [entry for entry in op_db if entry.name not in UNREACHABLE]


def test_every_unreachable_function_is_one_of_the_database() -> None:
    assert list(UNREACHABLE) == sorted(UNREACHABLE)
    assert set(UNREACHABLE) - set(NAMES) <= NOT_IN_EVERY_RELEASE


def test_the_readme_says_how_many_functions_are_reachable() -> None:
    readme = (FOLDER.parents[1] / "README.md").read_text(encoding="utf-8")
    stated = re.search(r"(\d+) of the (\d+) functions", readme)
    assert stated is not None, f"say in the README: {len(NAMES) - len(UNREACHABLE)} of the {len(NAMES)} functions"
    reached = len(NAMES) - len(UNREACHABLE.keys() & set(NAMES))
    if torch.__version__.partition("+")[0] == PINNED:
        assert (reached, len(NAMES)) == (int(stated[1]), int(stated[2]))
    assert reached / len(NAMES) > 0.9


@over("name", sorted(UNREACHABLE))
def test_what_is_listed_as_unreachable_cannot_be_said(name: str) -> None:
    for entry in op_db:
        dtypes = entry.supported_dtypes("cpu") if entry.name == name else ()
        for dtype in [each for each in DTYPES if each in dtypes][:2]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert list(said_samples(entry, dtype, False, 1)) == []


@over("entry", REACHED, split=initial)
def test_value_and_gradients_are_bit_equal_to_the_direct_call(entry: Any) -> None:
    tried = 0
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        for dtype, gradients in _dtypes(entry):
            for said in said_samples(entry, dtype, gradients, SAMPLES):
                tried += _compare(said, gradients)
    if tried == 0 and any(other.name == entry.name and other is not entry for other in op_db):
        return  # another variant of this function is tried
    assert tried > 0 or not _dtypes(entry), "no sample of this function has an expression: list it as unreachable"


def _dtypes(entry: Any) -> list[tuple[torch.dtype, bool]]:
    forward, backward = entry.supported_dtypes("cpu"), entry.supported_backward_dtypes("cpu")
    return [(dtype, entry.supports_autograd and dtype in backward) for dtype in DTYPES if dtype in forward]


def _compare(said: Said, gradients: bool) -> bool:
    """Compare one sample both ways; False where it gives nothing to compare."""
    torch.default_generator.manual_seed(SEED)
    expected = said.direct()
    names: list[str] = []
    left = target(expected, names)
    if not names:
        return False
    text = f"{left} = {said.call}"
    before = {name: (tensor._version, tensor.detach().clone()) for name, tensor in said.tensors.items()}
    found = _evaluate(text, names, said, gradients)
    for mine, theirs in zip(found, leaves(expected), strict=True):
        assert same(mine, theirs), text
    if gradients:
        _compare_gradients(text, said, expected, like(expected, iter(found)))
    for name, (version, copy) in before.items():
        assert said.tensors[name]._version == version, f"{text} wrote into {name}"
        assert same(said.tensors[name].detach(), copy), f"{text} changed {name}"
    return True


def _evaluate(text: str, names: list[str], said: Said, gradients: bool) -> list[Any]:
    """The values of `names` after the expression `text`."""
    lowered = lower_statements(text, Scope(tensors=said.tensors), Inference(gradients=gradients))
    computed = [name for name in names if isinstance(lowered.values[name], fx.Node)]
    computation = extract(lowered, computed)
    torch.default_generator.manual_seed(SEED)
    results = computation.function(None, *(said.tensors[name] for name in computation.inputs))
    found = dict(zip(computed, results, strict=True))
    return [found[name] if name in found else lowered.values[name] for name in names]


def _compare_gradients(text: str, said: Said, expected: Any, found: Any) -> None:
    inputs = [tensor for tensor in said.tensors.values() if tensor.requires_grad]
    theirs, mine = ([leaf for leaf in leaves(said.process(x)) if requires_grad(leaf)] for x in (expected, found))
    assert len(mine) == len(theirs), text
    if not inputs or not theirs:
        return
    directions = [torch.randn_like(leaf) for leaf in theirs]
    wanted = torch.autograd.grad(theirs, inputs, directions, allow_unused=True)
    given = torch.autograd.grad(mine, inputs, directions, allow_unused=True)
    for left, right in zip(given, wanted, strict=True):
        assert (left is None) == (right is None), text
        assert left is None or same(left, right), f"the gradient of {text}"
