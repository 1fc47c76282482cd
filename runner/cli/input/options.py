"""The arguments and options that several commands share."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, cast

import typer

from runner.cli.input.completion import complete_config, complete_override
from runner.cli.output.faults import FORMAT_KEY, Format
from runner.errors import UsageError


def examples(*lines: str) -> str:
    """The epilog of a command's help: its examples, one a line, not wrapped."""
    return "\n".join(["\b", "Examples:" if len(lines) > 1 else "Example:", *(f"  {line}" for line in lines)])


def _remember_format(context: typer.Context, value: str) -> str:
    if value not in ("text", "json"):
        raise typer.BadParameter("it is `text` or `json`")
    context.meta[FORMAT_KEY] = cast(Format, value)
    return value


ConfigPath = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="A YAML config; `-` reads standard input.",
        autocompletion=complete_config,
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Overrides: learning_rate=0.1 optimizer.sgd.lr=1e-3.",
        autocompletion=complete_override,
        show_default=False,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Another spelling of an override.",
        autocompletion=complete_override,
        show_default=False,
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option("--allow", metavar="FOLDER", help="Also read data below this folder.", show_default=False),
]
FaultFormat = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="text|json",
        help="How faults are written to standard error.",
        callback=_remember_format,
        is_eager=True,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Write the result to standard output as JSON.")]
RunsDir = Annotated[
    str, typer.Option("--runs-dir", metavar="FOLDER", envvar="STEPRUN_RUNS_DIR", help="Where run directories are kept.")
]

CheckpointEvery = Annotated[
    int | None,
    typer.Option(
        "--checkpoint-every", metavar="ROWS", min=1, help="Save the state after every so many rows.", show_default=False
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the run directory only.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print each row as one JSON object a line.")]

LIMITS = {
    "file_bytes": "Size of one config file.  [4MiB]",
    "nesting": "Lists and mappings inside one another.  [64]",
    "alias_nodes": "Nodes that YAML aliases stand for.  [10000]",
    "files": "Files that `extends` may bring in.  [100]",
    "nodes": "Operations of one expression.  [50000]",
    "memory": "Memory of the tensors of a run, views included, and what it may allocate on the CPU.  [the machine's]",
    "seconds": "Seconds of planning.  [3 of `validate`, else 20]",
}
"""Each limit has a flag `--max-NAME`; the first four bound reading a config, the others a plan."""

_UNITS = {
    None: 1,
    "B": 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_SIZE = re.compile(rf"([0-9][0-9_]*) ?({'|'.join(unit for unit in _UNITS if unit)})?")


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asked of a config on the command line."""

    config: str  # a path, or `-`
    overrides: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)  # only those that were given


def reads_config(command: Callable[..., None]) -> Callable[..., None]:
    """A command that takes a `Request` first, given the options that make one: typer reads them from the signature."""

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        texts = {name: given.pop(f"max_{name}") for name in LIMITS}
        request = Request(
            config=given.pop("config"),
            overrides=(*(given.pop("overrides") or ()), *(given.pop("sets") or ())),
            allow=tuple(given.pop("allow") or ()),
            limits={name: _amount(name, text) for name, text in texts.items() if text is not None},
        )
        command(request, **given)

    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    shared = [
        _parameter("config", ConfigPath, inspect.Parameter.empty),
        _parameter("overrides", Overrides, None),
        _parameter("sets", Set, None),
        _parameter("allow", Allow, None),
    ]
    limits = [_parameter(f"max_{name}", _limit_option(name, text), None) for name, text in LIMITS.items()]
    parameters = [*shared, *own, *limits]
    wrapper.__dict__.pop("__wrapped__")
    wrapper.__dict__["__signature__"] = inspect.Signature(parameters)
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper


def _parameter(name: str, annotation: object, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation, default=default)


def _limit_option(name: str, text: str) -> object:
    option = typer.Option(f"--max-{name.replace('_', '-')}", metavar="N", help=text, show_default=False)
    return Annotated[str | None, option]


def _amount(name: str, text: str) -> int:
    """A count or a size such as `64`, `1_000_000`, `8MiB`."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise UsageError(
            f"--max-{name.replace('_', '-')} is `{text}`: it takes a count such as 10000, or a size such as 8MiB"
        )
    return int(found[1]) * _UNITS[found[2]]
