"""What `engine: xla` cannot run is refused at its place: no JAX, a device, an operation, a large step."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import runner
from runner.errors import ConfigError
from runner.faults import Faults
from runner.language.xla import checking, tracing
from runner.language.xla.operators import table
from runner.plan.checks.engines import translatable
from runner.plan.checks.engines.translatable import check_device, check_jax
from tests.engine.running import compiled

jax = pytest.importorskip("jax")

TEXT = """\
parameters: {w: {shape: [3], init: ones}}
engine: xla
functions:
  wave(x): sin(x) + 1
expression: |
  f = (wave(w) * w).sum()
optimizer: {sgd: {lr: 0.1}}
steps: 3
"""


def missing(name: str) -> str:
    raise importlib.metadata.PackageNotFoundError(name)


def without(device: str) -> list[object]:
    raise RuntimeError(f"Unknown backend {device}")


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (missing, "`engine: xla` needs JAX, and it is not installed"),
        (lambda name: "0.4.38", "`engine: xla` needs JAX 0.10 or later, and this is JAX 0.4.38"),
    ],
)
def test_a_missing_or_old_jax_is_refused_at_the_engine(
    version: Callable[[str], str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(ConfigError, match="JAX") as caught:
        compiled(TEXT)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.message) == (2, 9, message)
    assert problem.hint == "install it with `pip install 'steprun[xla]'`, or write `engine: compile` or `engine: eager`"


@pytest.mark.parametrize(
    ("device", "message", "hint"),
    [
        (
            "cuda:1",
            "`engine: xla` runs on the devices of JAX, and it has no `cuda`",
            "install JAX for `cuda`, or write `engine: compile` or `engine: eager`",
        ),
        *(
            (
                device,
                f"`engine: xla` does not run on `{device}`",
                "write `device: cpu`, or `engine: compile` or `engine: eager`",
            )
            for device in ("mps", "mps:0")
        ),
    ],
)
def test_a_device_that_jax_does_not_have_is_refused(
    device: str, message: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "devices", without)
    faults = Faults(runner.loads(TEXT).document)
    check_jax(device, faults)
    if not faults.problems:
        check_device(device, faults)
    (problem,) = faults.problems
    assert (problem.line, problem.column, problem.message, problem.hint) == (2, 9, message, hint)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda", None),
        ("cuda:0", None),
        ("cuda:2", None),
        ("cuda:1", "`engine: xla` runs on the devices of JAX, and it has no `cuda:1`"),
        ("cuda:3", "`engine: xla` runs on the devices of JAX, and it has no `cuda:3`"),
    ],
)
def test_the_number_of_a_device_is_one_that_jax_has(
    device: str, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DLPack finds a device by the number that JAX calls its local hardware id."""
    of_jax = [SimpleNamespace(local_hardware_id=number) for number in (2, 0)]
    monkeypatch.setattr(jax, "devices", {"cuda": of_jax}.__getitem__)
    faults = Faults(runner.loads(TEXT).document)
    check_device(device, faults)
    assert [each.message for each in faults.problems] == ([] if message is None else [message])
    for problem in faults.problems:
        assert (problem.line, problem.column) == (2, 9)
        assert problem.hint == "write `device: cuda:0`, or `engine: compile` or `engine: eager`"


@pytest.mark.parametrize(
    ("platforms", "raised", "message", "hint"),
    [
        (
            "cuda",
            AssertionError(),
            "`engine: xla` runs on the devices of JAX, and it has no `cpu`: JAX_PLATFORMS is `cuda`",
            "unset the environment variable JAX_PLATFORMS, or write `engine: compile` or `engine: eager`",
        ),
        (
            "gpus",
            RuntimeError("Unable to initialize backend 'gpus'"),
            "`engine: xla` runs on the devices of JAX, and it has no `cpu`: JAX_PLATFORMS is `gpus`",
            "unset the environment variable JAX_PLATFORMS, or write `engine: compile` or `engine: eager`",
        ),
    ],
)
def test_devices_that_the_environment_excludes_are_told(
    platforms: str, raised: Exception, message: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def devices(kind: str) -> None:
        raise raised

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    faults = Faults(runner.loads(TEXT).document)
    check_device("cpu", faults)
    (problem,) = faults.problems
    assert (problem.line, problem.column, problem.message, problem.hint) == (2, 9, message, hint)


def test_a_jax_that_cannot_be_imported_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "jax.py").write_text('raise RuntimeError("jaxlib version 0.9 is newer than jax")')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "jax")
    with pytest.raises(ConfigError, match="JAX") as caught:
        compiled(TEXT)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (2, 9)
    assert problem.message == "JAX cannot be imported: jaxlib version 0.9 is newer than jax"
    assert problem.hint == "install it with `pip install 'steprun[xla]'`, or write `engine: compile` or `engine: eager`"


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (
            lambda monkeypatch: monkeypatch.delitem(table.RULES, "aten.cos.default"),  # of the gradient
            "`engine: xla` cannot compile this: JAX has no translation of `cos`",
        ),
        (
            lambda monkeypatch: monkeypatch.setattr(checking, "MOST_OPERATIONS", 16),
            "`engine: xla` cannot compile this: it has more than 10,000 operations with its gradients, the most that "
            "are compiled",
        ),
    ],
)
def test_an_operation_without_a_translation_is_refused_where_it_stands(
    patch: Callable[[pytest.MonkeyPatch], None], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch(monkeypatch)
    with pytest.raises(ConfigError, match="xla") as caught:
        compiled(TEXT)
    (problem,) = caught.value.problems
    assert problem.message == message
    assert problem.hint == "write `engine: compile` or `engine: eager`"
    assert (problem.line, problem.column) == ((4, 12) if "cos" in message else (6, 3))


def test_an_update_without_a_translation_is_a_fault_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = compiled(TEXT.replace("sgd: {lr: 0.1}", "adam: {}"))
    monkeypatch.delitem(table.RULES, "aten.sqrt.default")
    with pytest.raises(runner.RunError, match="sqrt") as caught:
        list(runner.execute(plan))
    (problem,) = caught.value.problems
    assert problem.message == "`engine: xla` cannot compile this step: JAX has no translation of `sqrt`"
    assert problem.line == 8


def test_a_step_is_as_large_as_its_expression_and_its_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is traced, only the updates are counted."""
    text = TEXT.replace("sgd: {lr: 0.1}", "adam: {}")
    told = []
    for most in (48, 49):
        monkeypatch.setattr(translatable, "MOST_IN_A_STEP", most)
        with pytest.raises(ConfigError, match="operations") as caught:
            compiled(text)
        (problem,) = caught.value.problems
        assert (problem.line, problem.hint) == (8, "join small parameters into one tensor, or write `engine: eager`")
        told.append(problem.message)
    assert told[0] == (
        "`engine: xla` cannot compile this step: it has about 49 operations to update 1 parameter, and 48 are the most"
    )
    before = "`engine: xla` cannot compile this step: it has about "
    after = " operations, 49 of them to update 1 parameter, and 49 are the most"
    assert told[1].startswith(before)
    assert told[1].endswith(after)
    total = int(told[1].removeprefix(before).removesuffix(after))
    assert 49 + 8 <= total <= 49 + 20  # sin, +, *, sum and their gradients: *, +, cos, expand


def test_an_operation_without_a_derivative_says_so_as_in_the_eager_engine() -> None:
    text = TEXT.replace("wave(x): sin(x) + 1", "wave(x): igamma(x, x)")
    messages = []
    for engine in ("xla", "eager"):
        with pytest.raises(runner.RunError, match="igamma") as caught:
            list(runner.execute(compiled(text.replace("engine: xla", f"engine: {engine}"))))
        messages.append(str(caught.value).replace("engine: xla", "engine: eager"))
    assert messages[0] == messages[1]


def test_tracing_draws_no_random_numbers_of_the_process() -> None:
    before = torch.random.get_rng_state()
    traced = tracing.trace(lambda x: [torch.nn.functional.dropout(x, 0.5)], [torch.ones(4)])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert len(traced.draws) == 1
    torch.manual_seed(3)
    drawn = traced.draws[0]()
    torch.manual_seed(3)
    assert torch.equal(drawn / 0.5, torch.nn.functional.dropout(torch.ones(4), 0.5))


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: torch.nn.functional.dropout(x, 0.5),
        torch.randn_like,
        lambda x: torch.randint_like(x, 9),
        lambda x: torch.rand(3, device=x.device, dtype=x.dtype),
        lambda x: torch.randperm(4, device=x.device),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_random_numbers_are_drawn_on_the_device_of_the_step(
    draw: Callable[[torch.Tensor], torch.Tensor], device: str
) -> None:
    x = torch.ones(4, device=device, dtype=torch.float64)
    (drawn,) = tracing.trace(lambda given: [draw(given)], [x]).draws
    assert drawn().device.type == device


def test_out_of_memory_is_told_at_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """XLA's own message says how many bytes it could not get."""
    from runner.engine.xla import translated
    from runner.engine.xla.regions import Region

    def full(self: Region, *given: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4294967296 bytes.")

    monkeypatch.setattr(Region, "__call__", full)
    monkeypatch.setattr(translated, "MOST_AT_ONCE", 1)
    with pytest.raises(runner.RunError, match="memory") as caught:
        list(runner.execute(compiled(TEXT)))
    (problem,) = caught.value.problems
    assert problem.line == 8
    assert problem.message == "this does not fit into memory: it needs 4.0 GiB (at repeat[1].train)"
