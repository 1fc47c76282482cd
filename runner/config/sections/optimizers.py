"""Reads optimizers: each is a class of torch.optim with arguments checked against the catalogue, or a rule."""

from __future__ import annotations

from typing import Any

from runner.catalogue import REFUSED_OPTIMIZERS, Optimizer, newer_arguments, optimizers
from runner.config.fields import FieldError, check_names
from runner.config.models import GroupDeclaration, OptimizerDeclaration, RuleDeclaration
from runner.config.sections.faults import Faults, accepted_names
from runner.config.sections.names import check_name
from runner.config.text.nodes import Path, describe
from runner.errors import did_you_mean

SINGLE = "optimizer"
"""The name of the optimizer that a config declares under `optimizer:`."""
SIDE_KEYS = ("parameters", "groups", "state")
RULE = "rule"
"""The key of an optimizer written as equations."""
RULE_NAMES = ("param", "grad", "t")
"""The names that every rule reads; no state entry may have one of them."""

_EXAMPLE = "write one class of torch.optim with its arguments, such as `{adam: {lr: 0.001}}`"


def read_optimizers(data: dict[str, Any], faults: Faults) -> dict[str, OptimizerDeclaration]:
    """Returns the optimizers by name, from `optimizer:` or `optimizers:`."""
    single, several = data.get("optimizer"), data.get("optimizers")
    if single is not None and several is not None:
        faults.add(
            ("optimizers",),
            "both `optimizer` and `optimizers` are given",
            "move it into `optimizers`, under a name",
            key=True,
        )
    if single is not None:
        declared = _declaration(single, ("optimizer",), faults)
        return {} if declared is None else {SINGLE: declared}
    if several is None:
        return {}
    if not isinstance(several, dict):
        faults.add(
            ("optimizers",),
            f"expected a mapping of names to optimizers, found {describe(several)}",
            "write `name: {adam: {lr: 0.001}}` below it",
        )
        return {}
    found: dict[str, OptimizerDeclaration] = {}
    for name, written in several.items():
        check_name(("optimizers", name), name, "an optimizer", faults)
        declared = _declaration(written, ("optimizers", name), faults)
        if declared is not None:
            found[name] = declared
    return found


def _declaration(written: Any, path: Path, faults: Faults) -> OptimizerDeclaration | None:
    if not isinstance(written, dict):
        hint = f"write `{{{written}: {{}}}}`" if isinstance(written, str) and written in optimizers() else _EXAMPLE
        faults.add(path, f"expected a mapping with one optimizer, found {describe(written)}", hint, key=written is None)
        return None
    before = faults.count
    kind = _kind(written, path, faults)
    if kind is None:
        return None
    if kind == RULE:
        return _rule(written, path, faults)
    table = _table(kind, path, faults)
    parameters = _names(written.get("parameters"), (*path, "parameters"), faults)
    if table is None:
        return None
    arguments = _arguments(table, written[kind], (*path, kind), faults)
    groups = _groups(table, written.get("groups"), (*path, "groups"), faults)
    state = _state(written.get("state"), (*path, "state"), faults)
    if faults.count > before:
        return None
    return OptimizerDeclaration(
        kind=kind, arguments=arguments, parameters=parameters, groups=tuple(groups), state=state, path=path
    )


def _rule(written: dict[str, Any], path: Path, faults: Faults) -> OptimizerDeclaration | None:
    before = faults.count
    place = (*path, RULE)
    if written.get("groups") is not None:
        hint = "write several optimizers, each with its rule and its `parameters`"
        faults.add((*path, "groups"), "a rule has no parameter groups", hint, key=True)
    body = written[RULE]
    if not isinstance(body, dict):
        hint = "write `rule: {update: param = param - 0.1 * grad}`"
        faults.add(place, f"expected a mapping with `update`, found {describe(body)}", hint, key=body is None)
        return None
    body = {key: value for key, value in body.items() if key != "state" or value is not None}
    states = body.get("state")
    for name in states if isinstance(states, dict) else ():
        if name in RULE_NAMES:
            message = f"`{name}` means something else in a rule"
            faults.add((*place, "state", name), message, "choose another name for this state", key=True)
        else:
            check_name((*place, "state", name), name, "a state of a rule", faults)
    rule = faults.build(RuleDeclaration, body, place)
    parameters = _names(written.get("parameters"), (*path, "parameters"), faults)
    state = _state(written.get("state"), (*path, "state"), faults)
    if rule is None or faults.count > before:
        return None
    return OptimizerDeclaration(kind=RULE, parameters=parameters, state=state, rule=rule, path=path)


def _kind(written: dict[str, Any], path: Path, faults: Faults) -> str | None:
    """Returns the one key that names a class or a rule, or None after adding a problem."""
    kinds = [key for key in written if key not in SIDE_KEYS]
    if len(kinds) == 1:
        return kinds[0]
    known = [key for key in kinds if key in optimizers() or key == RULE]
    if not kinds:
        faults.add(path, "no optimizer is named here", _EXAMPLE, key=True)
    elif len(known) == 1:
        for key in kinds:
            if key != known[0]:
                faults.add((*path, key), *_unknown_key(key, known[0]), key=True)
    else:
        hint = "remove one, or name several under `optimizers`"
        named = next(
            (value for key in kinds if isinstance(value := written[key], str) and value.lower() in optimizers()), None
        )
        if not known and named is not None:
            within = ", ".join(f"{key}: …" for key in kinds if written[key] != named)
            faults.add(
                path,
                "the name of an optimizer is a key here, not a value",
                f"write `{{{named.lower()}: {{{within}}}}}`",
                key=True,
            )
            return None
        faults.add(
            (*path, kinds[1]), f"`{kinds[0]}` and `{kinds[1]}`: only one optimizer is allowed here", hint, key=True
        )
    return None


def _unknown_key(key: str, kind: str) -> tuple[str, str]:
    """Returns the message and hint for an unknown key next to an optimizer's class."""
    within = RuleDeclaration.model_fields if kind == RULE else [part.name for part in optimizers()[kind].arguments]
    if key in within:
        return f"`{key}` belongs inside `{kind}`, not next to it", f"indent it, to put it inside `{kind}`"
    hint = f"allowed next to `{kind}`: {', '.join(SIDE_KEYS)}"
    meant = did_you_mean(key, SIDE_KEYS)
    return f"an optimizer has no key `{key}`", f"{hint}; {meant}" if meant else hint


def _table(kind: str, path: Path, faults: Faults) -> Optimizer | None:
    if kind in REFUSED_OPTIMIZERS:
        faults.add((*path, kind), f"{kind} is refused: {REFUSED_OPTIMIZERS[kind]}", "use another optimizer", key=True)
    elif kind not in optimizers():
        message = f"there is no optimizer `{kind}`"
        lower = kind.lower()
        others = f"optimizers are {', '.join([*optimizers(), RULE])}"
        hint = f"write `{lower}`: names are lower case" if lower in optimizers() else None
        if any(part.name == kind for part in optimizers()["sgd"].arguments):
            hint = f"`{kind}` is an argument: write `{{sgd: {{{kind}: …}}}}`, or `optimizer.sgd.{kind}=…`"
        faults.add(
            (*path, kind), message, hint or did_you_mean(kind, [*optimizers(), RULE, *SIDE_KEYS], others), key=True
        )
    else:
        return optimizers()[kind]
    return None


def _arguments(table: Optimizer, written: Any, path: Path, faults: Faults) -> dict[str, Any]:
    if written is None:
        written = {}
    if not isinstance(written, dict):
        hint = (
            f"write `{{{table.name}: {{lr: {written}}}}}`"
            if isinstance(written, int | float)
            else f"write `{{{table.name}: {{lr: 0.001}}}}`"
        )
        faults.add(path, f"expected a mapping of arguments, found {describe(written)}", hint)
        return {}
    _check_arguments(table, written, path, faults)
    missing = [
        argument.name for argument in table.arguments if argument.default is None and argument.name not in written
    ]
    for name in missing:
        faults.add(
            path, f"{table.name} needs the argument `{name}`", f"write `{{{table.name}: {{{name}: …}}}}`", key=True
        )
    return written


def _check_arguments(table: Optimizer, written: dict[str, Any], path: Path, faults: Faults) -> None:
    known = [argument.name for argument in table.arguments if argument.name not in table.refused]
    for name, value in written.items():
        if name in table.refused:
            faults.add((*path, name), f"the argument `{name}` is refused: {table.refused[name]}", "remove it", key=True)
        elif name not in known and name not in (newer := newer_arguments(table)):
            message = f"{table.name} has no argument `{name}`"
            faults.add((*path, name), message, accepted_names([*known, *newer], name), key=True)
        else:
            _check_hyperparameter(value, (*path, name), faults)


def _check_hyperparameter(value: Any, path: Path, faults: Faults) -> None:
    if isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, list | dict) or item == "":
                message = f"expected a number or an expression, found {describe(item)}"
                faults.add((*path, index), message, "write a number, or text such as `2 * n`")
    elif isinstance(value, dict) or value == "":
        message = f"expected a number, an expression or a list, found {describe(value)}"
        faults.add(path, message, "write a number, or text such as `0.1 / t`")


def _groups(table: Optimizer, written: Any, path: Path, faults: Faults) -> list[GroupDeclaration]:
    if written is None:
        return []
    if not isinstance(written, list):
        faults.add(
            path,
            f"expected a list of groups, found {describe(written)}",
            "write `[{parameters: [bias*], weight_decay: 0}]`",
        )
        return []
    groups: list[GroupDeclaration] = []
    for index, item in enumerate(written):
        place = (*path, index)
        if not isinstance(item, dict):
            faults.add(
                place, f"expected a mapping, found {describe(item)}", "write `{parameters: [bias*], weight_decay: 0}`"
            )
            continue
        arguments = {key: value for key, value in item.items() if key != "parameters"}
        _check_arguments(table, arguments, place, faults)
        if item.get("parameters") is None:
            faults.add(
                place, "a parameter group needs `parameters`", "name them, or give a glob such as `[bias*]`", key=True
            )
            continue
        names = _names(item["parameters"], (*place, "parameters"), faults)
        if names is not None:
            groups.append(GroupDeclaration(parameters=names, arguments=arguments))
    return groups


def _state(written: Any, path: Path, faults: Faults) -> dict[str, dict[str, Any]]:
    if written is None:
        return {}
    if not isinstance(written, dict):
        faults.add(
            path, f"expected a mapping of parameters to state, found {describe(written)}", "write `{x1: {exp_avg: m0}}`"
        )
        return {}
    for name, entries in written.items():
        if not isinstance(entries, dict):
            faults.add(
                (*path, name),
                f"expected a mapping of state names to tensors, found {describe(entries)}",
                "write `{exp_avg: m0}`",
            )
            continue
        for key, value in entries.items():
            if not isinstance(value, int | float | str) or value == "":
                message = f"expected a tensor's name, an expression or a number, found {describe(value)}"
                faults.add((*path, name, key), message, "write the name of a tensor, such as `m0`")
    return written


def _names(written: Any, path: Path, faults: Faults) -> tuple[str, ...] | None:
    try:
        return check_names(written)
    except FieldError as error:
        faults.add(path, error.message, error.hint)
        return None
