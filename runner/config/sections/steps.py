"""Reads `steps`: a count or a list of steps, with bare words and short arguments expanded."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from runner.config.fields import FieldError, check_assigned, check_names, check_number
from runner.config.frozen import Frozen
from runner.config.models import (
    STEP_MODELS,
    Checkpoint,
    Epochs,
    Evaluate,
    Expect,
    Expectation,
    ForEach,
    Next,
    Patience,
    Repeat,
    Step,
    Train,
)
from runner.config.sections.faults import Faults, keys_of
from runner.config.text.nodes import Path, describe
from runner.errors import did_you_mean

BEST = "best"
"""The tag of the checkpoint with the best weights."""

SIDE_KEYS = ("every", "when")
BARE = ("forward", "backward", "step", "zero_grad", "train", "checkpoint", "stop")
"""Steps that need no argument."""

LEAVING = ("stop", "patience")
"""Steps that leave a loop."""

_EXAMPLES = {
    "clip_grad_norm": "clip_grad_norm: 1.0",
    "clip_grad_value": "clip_grad_value: 0.5",
    "assign": "assign: {x: x - 0.1 * x.grad}",
    "expect": "expect: {x.grad: 10}",
    "next": "next: train",
    "evaluate": "evaluate: test",
    "repeat": "repeat: {times: 10, steps: [train]}",
    "for_each": "for_each: {data: train, epochs: 10, steps: [train]}",
    "patience": "patience: {on: valid.loss, evaluations: 5}",
    "reduce_lr_on_plateau": "reduce_lr_on_plateau: {rate: rate, on: valid.loss}",
}
_LOOPS: dict[str, tuple[type[Repeat] | type[ForEach], str]] = {
    "repeat": (Repeat, "`times` and `steps`"),
    "for_each": (ForEach, "`data`, `epochs` and `steps`"),
}


def read_program(written: Any, scalars: frozenset[str], faults: Faults) -> tuple[Step, ...]:
    """Returns the steps of a config; the default is `[backward]`."""
    path: Path = ("steps",)
    if written is None:
        return (Step(kind="backward", argument=STEP_MODELS["backward"](), path=path),)
    if isinstance(written, dict):
        if "epochs" in written:
            return _epochs(written, path, faults)
        faults.add(path, "expected a list of steps or a count, found a mapping", "put `- ` before each step")
        return ()
    if isinstance(written, str) and written.lstrip("- ") in STEP_MODELS.keys() - scalars:
        word = written.lstrip("- ")
        hint = f"write `[{word}]`" if word == written else "put a space after `-`"
        faults.add(path, f"expected a list of steps or a count, found the text `{written}`", hint)
        return ()
    if isinstance(written, str) and (words := _words_of_steps(written, scalars)):
        hint = f"write `steps: [{', '.join(words)}]`"
        faults.add(path, f"expected a list of steps or a count, found the text `{written}`", hint)
        return ()
    if not isinstance(written, list):
        try:
            times = check_number(written)
        except FieldError:
            faults.add(
                path,
                f"expected a list of steps or a count, found {describe(written)}",
                "write `steps: [backward, step]`",
            )
            return ()
        train = Step(kind="train", argument=Train(), path=path)
        return (Step(kind="repeat", argument=Repeat(times=times, steps=(train,)), path=path),)
    return _steps(written, path, 0, faults)


_IN_SHORT: dict[str, tuple[str, str]] = {
    "evaluate": ("the name of a data source", "write `evaluate: valid`; its other keys are those of a step in a list"),
    "patience": ("a count", "write `patience: 5`; its other keys are those of a step in a list"),
}
"""Keys of the short form that are mappings as steps: what they are here, and what to write."""


def _epochs(written: dict[str, Any], path: Path, faults: Faults) -> tuple[Step, ...]:
    """Expands `{epochs: n}`: one `train` for each batch of the first source.

    With `evaluate`, each pass is an iteration of a `repeat`, and the source is evaluated after it.
    """
    before = faults.count
    for key, (expected, example) in _IN_SHORT.items():
        if isinstance(written.get(key), dict | list):
            faults.add((*path, key), f"expected {expected}, found {describe(written[key])}", example)
    if faults.count > before:
        return ()
    short = faults.build(Epochs, written, path)
    if short is None:
        return ()

    def step(kind: str, argument: Frozen) -> Step:
        return Step(kind=kind, argument=argument, path=path)

    train = (step("train", Train()),)
    if short.evaluate is None:
        if short.patience is not None:
            hint = "write `{epochs: …, evaluate: valid, patience: …}`"
            faults.add((*path, "patience"), "`patience` without `evaluate`", hint, key=True)
        return (step("for_each", ForEach(epochs=short.epochs, steps=train)),)
    steps = [
        step("for_each", ForEach(steps=train)),
        step("evaluate", Evaluate(data=short.evaluate)),
        step("checkpoint", Checkpoint(best=short.evaluate)),
    ]
    if short.patience is not None:
        steps.append(step("patience", Patience(on=short.evaluate, evaluations=short.patience)))
    return (step("repeat", Repeat(times=short.epochs, steps=tuple(steps))),)


def _words_of_steps(written: str, scalars: frozenset[str]) -> list[str]:
    """Returns the names of steps that a text lists, such as `backward, step`; none if it may be a count."""
    words = re.findall(r"[^\s,;-]+", written)
    return words if len(words) > 1 and all(word in STEP_MODELS.keys() - scalars for word in words) else []


def _steps(written: list[Any], path: Path, loops: int, faults: Faults) -> tuple[Step, ...]:
    found = [_step(item, (*path, index), loops, faults) for index, item in enumerate(written)]
    return tuple(step for step in found if step is not None)


def _step(written: Any, path: Path, loops: int, faults: Faults) -> Step | None:
    if isinstance(written, str):
        written = {written: None}
        bare = True
    else:
        bare = False
    if not isinstance(written, dict):
        faults.add(path, f"expected a step, found {describe(written)}", f"steps are {', '.join(STEP_MODELS)}")
        return None
    kinds = [key for key in written if key not in SIDE_KEYS]
    kind = _kind(kinds, path, bare, faults)
    if kind is None:
        return None
    before = faults.count
    place = path if bare else (*path, kind)
    if written.get("every") is not None and loops == 0:
        faults.add(
            (*path, "every"),
            "`every` outside a loop",
            "move the step into a `repeat` or `for_each`, or remove `every`",
            key=True,
        )
    if kind in LEAVING and loops == 0:
        faults.add(place, f"`{kind}` outside a loop", "move it into a `repeat` or `for_each`", key=True)
    argument = _argument(kind, written[kind], place, loops, faults)
    values: dict[str, Any] = {key: written[key] for key in SIDE_KEYS if key in written}
    if isinstance(values.get("when"), bool):
        values["when"] = str(values["when"])
    step = faults.build(Step, {"kind": kind, "argument": argument, "path": path, **values}, path)
    return step if faults.count == before else None


def _kind(kinds: list[str], path: Path, bare: bool, faults: Faults) -> str | None:
    """Returns the kind of a step from its keys, or None after adding a problem."""
    known = [key for key in kinds if key in STEP_MODELS]
    unknown = [key for key in kinds if key not in STEP_MODELS]
    for key in unknown:
        faults.add(path if bare else (*path, key), *_unknown(key, known), key=True)
    if not kinds:
        faults.add(path, "no step here", f"steps are {', '.join(STEP_MODELS)}")
    if len(known) > 1:
        faults.add(
            (*path, known[1]),
            f"`{known[0]}` and `{known[1]}` in one step",
            "put `- ` before the second",
            key=True,
        )
    if len(known) != 1 or unknown:
        return None
    return known[0]


def _unknown(key: str, known: list[str]) -> tuple[str, str | None]:
    """Returns the message and hint for an unknown key of a step that has the step keys `known`."""
    if not known:
        return f"there is no step `{key}`", _step_instead(key)
    kind = known[0]
    if kind in STEP_MODELS and key in keys_of(STEP_MODELS[kind]):
        return f"`{key}` belongs inside `{kind}`, not next to it", f"indent it, to put it inside `{kind}`"
    hint = f"allowed next to `{kind}`: every, when"
    meant = did_you_mean(key, SIDE_KEYS)
    return f"a step has no key `{key}`", f"{hint}; {meant}" if meant else hint


def _step_instead(key: str) -> str | None:
    """Returns a hint for a key that is no step: `loss.backward()` and `for 10` are habits from Python."""
    if re.match(r"(for|while|loop)\b", key):
        return f"write `{_EXAMPLES['repeat']}`"
    called = re.fullmatch(r"(?:\w+\.)*(\w+)\(.*\)", key)
    if called and called[1] in STEP_MODELS:
        return f"write `{called[1]}`"
    return did_you_mean(key, STEP_MODELS, f"steps are {', '.join(STEP_MODELS)}")


def _argument(kind: str, written: Any, path: Path, loops: int, faults: Faults) -> Frozen | None:
    if written is None and kind not in BARE:
        faults.add(path, f"`{kind}` needs an argument", f"write `{_EXAMPLES[kind]}`", key=True)
        return None
    if kind in _LOOPS:
        return _loop(kind, written, path, loops, faults)
    if kind == "expect":
        return _expect(written, path, faults)
    return _SHORT[kind](kind, written, path, faults)


def _loop(kind: str, written: Any, path: Path, loops: int, faults: Faults) -> Frozen | None:
    model, keys = _LOOPS[kind]
    if not isinstance(written, dict):
        faults.add(path, f"expected a mapping of {keys}, found {describe(written)}", f"write `{_EXAMPLES[kind]}`")
        return None
    data = dict(written)
    steps = data.get("steps")
    if isinstance(steps, list):
        data["steps"] = _steps(steps, (*path, "steps"), loops + 1, faults)
    elif "steps" in data:
        faults.add((*path, "steps"), f"expected a list of steps, found {describe(steps)}", "write it in `[…]`")
        data["steps"] = ()
    return faults.build(model, data, path)


def _expect(written: Any, path: Path, faults: Faults) -> Frozen | None:
    if not isinstance(written, dict) or not written:
        found = describe(written) if written != {} else "an empty mapping"
        faults.add(
            path, f"expected a mapping of expressions to values, found {found}", f"write `{_EXAMPLES['expect']}`"
        )
        return None
    expectations: dict[str, Any] = {}
    for expression, value in written.items():
        place = (*path, expression)
        data = dict(value) if isinstance(value, dict) else {"value": value}
        within = {} if isinstance(value, dict) else {"value": place}
        if isinstance(data.get("value"), dict) or data.get("value") == "":
            message = f"expected a number, a list or an expression, found {describe(data['value'])}"
            faults.add((*place, "value"), message, "write a number, a list, or text such as `2 * x`")
            continue
        if isinstance(data.get("value"), list):
            if not _holds_values(data["value"]):
                message = "expected numbers or expressions in the list, found something else"
                faults.add((*place, "value"), message, "write numbers, or text such as `2 * x`")
                continue
            data["value"] = _as_tuple(data["value"])
        expectations[expression] = faults.build(Expectation, data, place, within)
    return Expect.model_construct(expectations=expectations)


def _holds_values(value: Any) -> bool:
    return all(map(_holds_values, value)) if isinstance(value, list) else isinstance(value, int | float | str)


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _with_key(key: str, types: tuple[type, ...]) -> Callable[[str, Any, Path, Faults], Frozen | None]:
    """Returns a reader of arguments whose short form, of one of `types`, is the value of `key`."""

    def read(kind: str, written: Any, path: Path, faults: Faults) -> Frozen | None:
        model = STEP_MODELS[kind]
        if written is None:
            return model()
        if isinstance(written, dict):
            return faults.build(model, written, path)
        if not isinstance(written, types) or isinstance(written, bool):
            faults.add(path, f"expected {_EXPECTED[types]}, found {describe(written)}", f"write `{kind}: {{{key}: …}}`")
            return None
        return faults.build(model, {key: written}, path, {key: path})

    return read


_EXPECTED: dict[tuple[type, ...], str] = {
    (str,): "a name or a mapping",
    (str, int): "a name or a mapping",
    (str, list): "optimizer names or a mapping",
    (int, float, str): "a number, an expression or a mapping",
}


def _mapping_only(kind: str, written: Any, path: Path, faults: Faults) -> Frozen | None:
    if written is not None and not isinstance(written, dict):
        faults.add(
            path,
            f"expected a mapping, found {describe(written)}",
            f"write `{kind}: {{objective: {written if isinstance(written, str) else '…'}}}`",
        )
        return None
    return faults.build(STEP_MODELS[kind], written or {}, path)


def _keys_only(kind: str, written: Any, path: Path, faults: Faults) -> Frozen | None:
    if not isinstance(written, dict):
        faults.add(path, f"expected a mapping, found {describe(written)}", f"write `{_EXAMPLES[kind]}`")
        return None
    return faults.build(STEP_MODELS[kind], written, path)


def _checkpoint(kind: str, written: Any, path: Path, faults: Faults) -> Frozen | None:
    read = _with_key("tag", (str, int))(kind, written, path, faults)
    if isinstance(read, Checkpoint) and read.tag == BEST:
        at = (*path, "tag") if isinstance(written, dict) else path
        message = f"`{BEST}` is the name of the best weights, and no tag"
        faults.add(at, message, "write `checkpoint: {best: valid.loss}`, or another tag")
    elif isinstance(read, Checkpoint) and read.best is not None and read.tag is not None:
        message = "a checkpoint has `tag` or `best`, and this one has both"
        faults.add((*path, "tag"), message, "remove one of them", key=True)
    elif isinstance(read, Checkpoint) and read.best is None and "mode" in read.model_fields_set:
        hint = "write `checkpoint: {best: valid.loss, mode: …}`"
        faults.add((*path, "mode"), "`mode` without `best`", hint, key=True)
    return read


def _nothing(kind: str, written: Any, path: Path, faults: Faults) -> Frozen | None:
    if written is not None:
        faults.add(
            path, f"`{kind}` takes no argument, found {describe(written)}", f"write `{kind}:` with `when:` next to it"
        )
        return None
    return STEP_MODELS[kind]()


def _assign(kind: str, written: Any, path: Path, faults: Faults) -> Frozen | None:
    if not isinstance(written, dict) or not written:
        found = describe(written) if written != {} else "an empty mapping"
        faults.add(path, f"expected a mapping of names to expressions, found {found}", f"write `{_EXAMPLES[kind]}`")
        return None
    if not faults.check_each(written.items(), check_assigned, path):
        return None
    return faults.build(STEP_MODELS[kind], {"values": written}, path)


def _next(kind: str, written: Any, path: Path, faults: Faults) -> Frozen | None:
    if isinstance(written, dict):
        unknown = [key for key in written if key != "data"]
        for key in unknown:
            faults.unknown(path, key, Next.noun, ("data",))
        if unknown:
            return None
        written, path = written.get("data"), (*path, "data")
    try:
        names = check_names(written)
    except FieldError as error:
        faults.add(path, error.message, error.hint)
        return None
    if names is None:
        faults.add(path, "`next` needs a data source", f"write `{_EXAMPLES['next']}`", key=True)
        return None
    return Next(data=names)


_SHORT: dict[str, Callable[[str, Any, Path, Faults], Frozen | None]] = {
    "forward": _with_key("objective", (str,)),
    "backward": _with_key("objective", (str,)),
    "step": _with_key("optimizer", (str, list)),
    "zero_grad": _with_key("optimizer", (str, list)),
    "train": _mapping_only,
    "checkpoint": _checkpoint,
    "patience": _keys_only,
    "reduce_lr_on_plateau": _keys_only,
    "clip_grad_norm": _with_key("max_norm", (int, float, str)),
    "clip_grad_value": _with_key("clip_value", (int, float, str)),
    "assign": _assign,
    "next": _next,
    "evaluate": _with_key("data", (str,)),
    "stop": _nothing,
}
