"""Reports what `engine: xla` cannot run, with the reason, before step 1: JAX itself, the device, and each step."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from runner.faults import Faults, sentence
from runner.language.lowering.diagnosis import READS_BACK
from runner.language.text.faults import LanguageError
from runner.optim import OptimizerPlan
from runner.plan.checks.engines.compilable import check_compilable, loop_around
from runner.plan.checks.engines.step_size import MOST_IN_A_STEP, updated, updates_of
from runner.plan.checks.engines.versions import jax_versions
from runner.plan.checks.whole_steps import EAGER
from runner.plan.memory import unbounded_memory, uncollected
from runner.plan.program.instructions import Action, Instruction, Train
from runner.plan.rows.health import HealthPlan
from runner.text import counted

LEAST_JAX = (0, 10)
"""The first version of JAX whose functions this engine calls."""

MOST_AT_ONCE = 1 << 14
"""Maximum number of iterations in one call of code that XLA compiled."""

THREADS, THREAD_BYTES = 16, 160 << 20
"""Threads of JAX beside those for each core, and the address space of one: its stack, and its arena of glibc."""

OTHERS = f"`engine: compile` or {EAGER}"

PLATFORMS = "JAX_PLATFORMS"
"""The environment variable that names the devices that JAX starts."""

_INSTALL = "install it with `pip install 'steprun[xla]'`"


def check_jax(device: str, faults: Faults) -> None:
    """Report a missing or old JAX, and a device that it never has."""
    version = jax_versions().get("jax")
    if version is None:
        message = "`engine: xla` needs JAX, and it is not installed"
        faults.add(("engine",), message, f"{_INSTALL}, or write {OTHERS}")
        return
    if _numbers(version) < LEAST_JAX:
        least = ".".join(map(str, LEAST_JAX))
        message = f"`engine: xla` needs JAX {least} or later, and this is JAX {version}"
        faults.add(("engine",), message, f"{_INSTALL}, or write {OTHERS}")
        return
    if device.partition(":")[0] == "mps":
        faults.add(("engine",), f"`engine: xla` does not run on `{device}`", f"write `device: cpu`, or {OTHERS}")


def check_device(device: str, faults: Faults, engine: str = "xla") -> None:
    """Report a device that JAX does not have, or that the environment excludes. Starts JAX.

    Args:
        engine: what the config says, `xla` or `auto`.
    """
    import jax

    kind, _, index = device.partition(":")
    threads = (THREADS + 4 * (os.cpu_count() or 1)) * THREAD_BYTES
    runs = "`engine: xla` runs" if engine == "xla" else "`engine: auto` is `xla` for this config, which runs"
    try:
        with unbounded_memory(threads), uncollected():
            devices = jax.devices(kind)
    except (RuntimeError, AssertionError):  # the latter if JAX_PLATFORMS names a device that this machine lacks
        message = f"{runs} on the devices of JAX, and it has no `{kind}`"
        hint = f"install JAX for `{kind}`, or write {OTHERS}"
        if PLATFORMS in os.environ:
            message += f": {PLATFORMS} is `{os.environ[PLATFORMS]}`"
            hint = f"unset the environment variable {PLATFORMS}, or write {OTHERS}"
        faults.add(("engine",), message, hint)
        return
    found = [each.local_hardware_id for each in devices]
    if kind != "cpu" and int(index or 0) not in found:
        message = f"{runs} on the devices of JAX, and it has no `{kind}:{int(index or 0)}`"
        faults.add(("engine",), message, f"write `device: {kind}:{min(found)}`, or {OTHERS}")


def _numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def check_translatable(
    program: Sequence[Instruction],
    optimizers: Mapping[str, OptimizerPlan],
    trainable: Sequence[str],
    health: HealthPlan,
    faults: Faults,
) -> None:
    """Report each step and optimizer that cannot be compiled, each operation without a translation, and large steps.

    What it reports depends on the plan and on the installed JAX alone, so `engine: auto` can choose by it.
    """
    check_compilable(program, optimizers, health, faults, "xla")
    if not faults.problems:
        _check_sizes(program, optimizers, faults)  # before anything is traced
    if faults.problems:
        return
    operations = _check_expressions(program, trainable, faults)
    if not faults.problems:
        _check_sizes(program, optimizers, faults, operations)


def _check_expressions(program: Sequence[Instruction], trainable: Sequence[str], faults: Faults) -> Mapping[int, int]:
    """Report operations without a translation. Returns the number of operations by the `id` of their evaluation."""
    with unbounded_memory(), uncollected():
        try:
            import jax  # noqa: F401
        except (ImportError, RuntimeError) as error:  # an installation of JAX whose parts do not fit
            faults.add(("engine",), f"JAX cannot be imported: {sentence(error)}", f"{_INSTALL}, or write {OTHERS}")
            return {}
        return {id(train.evaluation): _check_expression(train, trainable, faults) for train in _distinct(program)}


def _check_expression(train: Train, trainable: Sequence[str], faults: Faults) -> int:
    """Report an operation without a translation. Returns the number of operations of an evaluation."""
    from runner.language.xla.checking import untranslatable

    largest, objective = 0, train.evaluation.objective
    for computation in train.evaluation.computations():
        found = untranslatable(computation, objective, train.inputs or trainable)
        if isinstance(found, LanguageError):
            found.hint = f"write {EAGER if found.message == READS_BACK else OTHERS}"
            found.message = f"`engine: xla` cannot compile this: {found.message}"
            faults.language(("expression",), found)
            break
        largest = max(largest, found)
    return largest


def _check_sizes(
    program: Sequence[Instruction],
    optimizers: Mapping[str, OptimizerPlan],
    faults: Faults,
    operations: Mapping[int, int] = MappingProxyType({}),
) -> None:
    """Report each step with too many operations.

    Args:
        operations: how many an evaluation has, by its identity; none where they are not known yet.
    """
    for action in program:
        if not (isinstance(action, Action) and isinstance(action.argument, Train)):
            continue
        train, parameters = action.argument, updated(action.argument, optimizers)
        updates = updates_of(train, optimizers)
        total = updates + train.accumulate * operations.get(id(train.evaluation), 0)
        if total <= MOST_IN_A_STEP:
            continue
        some = f", {updates:,} of them" if operations else ""
        message = (
            f"`engine: xla` cannot compile this step: it has about {total:,} operations{some} to update "
            f"{counted(len(parameters), 'parameter')}, and {MOST_IN_A_STEP:,} are the most"
        )
        smaller = "join small parameters into one tensor" if 2 * updates > total else "accumulate fewer batches"
        faults.add(action.config_path, message, f"{smaller}, or write {EAGER}", key=True)


def most_translated_at_once(program: Sequence[Instruction]) -> int:
    """The maximum number of loop iterations in one call of `engine: xla`; large iterations reduce it further."""
    looped = any(
        isinstance(action, Action) and isinstance(action.argument, Train) and loop_around(program, position)
        for position, action in enumerate(program)
    )
    return MOST_AT_ONCE if looped else 1


def _distinct(program: Sequence[Instruction]) -> list[Train]:
    """The `train` steps, one for each evaluation."""
    steps = [action.argument for action in program if isinstance(action, Action) and isinstance(action.argument, Train)]
    return list({id(train.evaluation): train for train in steps}.values())
