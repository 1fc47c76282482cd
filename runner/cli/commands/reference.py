"""`steprun schema` and `steprun ops`: what a config may contain. Neither imports torch."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from runner.cli.input.declarations import argument
from runner.cli.input.options import FaultFormat, Json, examples
from runner.cli.output.printing import say, say_json
from runner.errors import Problem, UsageError, did_you_mean

WIDTH = 100

NOTES = {
    "default_dtype": "makes a tensor of the config's dtype, unless `dtype` is given",
    "dynamic": "the shape of its result may depend on data",
    "factory": "makes a tensor on the config's device",
    "measure": "is a metric that steprun ships: it is not differentiable, and null where it is not defined",
    "whole": "is computed by `evaluate` from all samples at once",
    "inferred_dtype": "makes a tensor of the dtype of its values, floats in the config's dtype",
    "random": "may draw random numbers, from the config's seed",
    "running_statistics": "writes its running statistics unless `training` is False",
    "scalar": "returns a scalar, not a tensor",
}
"""Explanations of the catalogue's flags."""


def register(application: typer.Typer) -> None:
    application.command(
        epilog=examples(
            "steprun schema > steprun.schema.json",
            "# yaml-language-server: $schema=steprun.schema.json     (first line of a config)",
        ),
        short_help="Print the JSON Schema of configs.",
    )(schema)
    application.command(
        epilog=examples("steprun ops", "steprun ops softmax", "steprun ops 'linalg.*' --json"),
        short_help="List the operations of the expression language.",
    )(ops)


def schema(
    draft: Annotated[
        str, typer.Option("--draft", metavar="7|2020-12", help="Draft of JSON Schema. All editors read draft 7.")
    ] = "7",
    report: FaultFormat = "text",
) -> None:
    """Print the JSON Schema of configs, for editors and other programs.

    With yaml-language-server, an editor completes and checks a config whose first line names the schema. The path is
    relative to the config.
    """
    from runner.config import json_schema
    from runner.config.schema.config import DRAFTS

    if draft not in DRAFTS:
        known = " or ".join(f"`{each}`" for each in DRAFTS)
        raise UsageError(Problem(f"there is no draft `{draft}`", f"write {known}"))
    say_json(json_schema(draft))


def ops(
    name: Annotated[
        str | None,
        argument("NAME|PATTERN", help="A name, or a pattern such as 'log*'. Without it, everything is listed."),
    ] = None,
    as_json: Json = False,
    report: FaultFormat = "text",
) -> None:
    """List the operations, optimizers, schedules and initialisers that a config may name, or show one of them."""
    entries = list(_entries())
    whole = name is not None and not any(mark in name for mark in "*?[")
    if whole:
        assert name is not None
        entries = _named(name, entries)
    elif name is not None:
        entries = [entry for entry in entries if any(fnmatch.fnmatchcase(alias, name) for alias in _aliases(entry))]
        if not entries:
            raise UsageError(Problem(f"no operation matches `{name}`", "`steprun ops` lists all of them"))
    if as_json:
        say_json(entries)
    elif whole:
        say("\n\n".join(_page(entry) for entry in entries))
    else:
        say("\n".join(_listing(entries)))


def _entries() -> Iterator[dict[str, Any]]:
    """Everything in the catalogue as plain values: group, name, signatures, target, notes."""
    from runner import catalogue

    spans = catalogue.spans()
    for group, table in (
        ("operations", catalogue.operations()),
        ("methods", catalogue.methods()),
        ("attributes", catalogue.attributes()),
        ("metrics", catalogue.measures()),
    ):
        for operation in table.values():
            yield {
                "group": group,
                "name": operation.name,
                "signatures": [catalogue.signature_text(operation.name, overload) for overload in operation.overloads],
                "target": operation.target,
                "notes": [*sorted(operation.flags), *([str(spans[operation.name])] if operation.name in spans else [])],
            }
    yield {
        "group": "derivatives",
        "name": "grad",
        "signatures": ["grad(y: Tensor, x: Tensor|Tensor[])"],
        "target": "torch.autograd.grad",
        "notes": ["the derivative of a `y` of one element, itself differentiable; zeros where `y` is without `x`"],
    }
    for optimizer in catalogue.optimizers().values():
        yield {
            "group": "optimizers",
            "name": optimizer.name,
            "signatures": [catalogue.signature_text(optimizer.name, optimizer.arguments)],
            "target": f"torch.optim.{optimizer.class_name}",
            "notes": [
                *(f"`{argument}` is refused: {reason}" for argument, reason in optimizer.refused.items()),
                *(
                    f"`{argument.name}`: {spans[key]}"
                    for argument in optimizer.arguments
                    if (key := f"{optimizer.name}({argument.name})") in spans
                ),
            ],
        }
    for schedule in catalogue.schedules().values():
        yield {
            "group": "schedules",
            "name": schedule.name,
            "signatures": [catalogue.signature_text(schedule.name, schedule.arguments)],
            "target": f"torch.optim.lr_scheduler.{schedule.class_name}",
            "notes": ["is for hyperparameters, and counts the optimizer's steps"],
        }
    for initialiser in catalogue.initialisers().values():
        yield {
            "group": "initialisers",
            "name": initialiser.name,
            "signatures": [catalogue.signature_text(initialiser.name, initialiser.arguments)],
            "target": f"torch.nn.init.{initialiser.function}",
            "notes": [],
        }


def _aliases(entry: dict[str, Any]) -> set[str]:
    """The names that a user may type for an entry: as listed, without `F.` or `torch.`, without the method's dot."""
    name: str = entry["name"]
    short = name.removeprefix("F.").removeprefix("torch.").removeprefix(".")
    return {name, short, entry["target"], entry["target"].removeprefix("torch.")}


def _named(name: str, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from runner.catalogue import refusal

    found = [entry for entry in entries if name in _aliases(entry)]
    if not found:
        reason = refusal(name)
        if reason is not None:
            raise UsageError(Problem(f"`{name}` is not available: {reason}", "`steprun ops` lists what is"))
        known = {alias for entry in entries for alias in _aliases(entry)}
        raise UsageError(
            Problem(f"there is no operation `{name}`", did_you_mean(name, known, "`steprun ops` lists all of them"))
        )
    return found


def _listing(entries: list[dict[str, Any]]) -> Iterator[str]:
    """One line for each signature, below a heading for each group."""
    group = ""
    for entry in entries:
        if entry["group"] != group:
            if group:
                yield ""
            group = entry["group"]
            count = sum(other["group"] == group for other in entries)
            yield f"{group} ({count})"
        for line in entry["signatures"] or [entry["name"]]:
            yield f"  {line}"


def _page(entry: dict[str, Any]) -> str:
    lines = [_wrapped(line) for line in entry["signatures"] or [entry["name"]]]
    lines.append(f"  is {entry['target']}" if "." in entry["target"] else f"  is the tensor's own `{entry['target']}`")
    lines.extend(f"  {_note(note)}" for note in entry["notes"])
    return "\n".join(lines)


def _note(note: str) -> str:
    return f"equals {note}" if note.startswith("sklearn.") else NOTES.get(note, note)


def _wrapped(signature: str) -> str:
    """A long signature on several lines, each ending after a comma."""
    lines = [""]
    for part in re.split("(?<=, )", signature):
        if lines[-1].strip() and len(lines[-1]) + len(part.rstrip()) > WIDTH:
            lines.append("    ")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)
