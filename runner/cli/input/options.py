"""The arguments and options that several commands share."""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from runner.cli.input.completion import complete_config, complete_override
from runner.cli.input.declarations import argument, option
from runner.cli.input.runs import config_path
from runner.cli.output.faults import FORMAT_KEY, Format
from runner.errors import Problem, UsageError


def examples(*lines: str) -> str:
    """The epilog of a command's help: its examples, one per line, not wrapped."""
    return "\n".join(["\b", "Examples:" if len(lines) > 1 else "Example:", *(f"  {line}" for line in lines)])


def _remember_format(context: typer.Context, value: str) -> str:
    if value not in get_args(Format):
        raise typer.BadParameter("it is `text`, `json` or `github`")
    context.meta[FORMAT_KEY] = cast(Format, value)
    return value


ConfigPath = Annotated[
    str, argument("CONFIG", help="A YAML config, `-` for standard input, or a run.", autocompletion=complete_config)
]
Overrides = Annotated[
    list[str] | None,
    argument(
        "KEY=VALUE",
        help="Overrides, such as learning_rate=0.1 or optimizer.sgd.lr=1e-3.",
        autocompletion=complete_override,
    ),
]
Set = Annotated[
    list[str] | None,
    option("--set", metavar="KEY=VALUE", help="An override, the same as KEY=VALUE.", autocompletion=complete_override),
]
Allow = Annotated[
    list[str] | None,
    option("--allow", metavar="FOLDER", help="Allow data files in this folder and below. May be repeated."),
]
FaultFormat = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="text|json|github",
        help="Format of problems on standard error.",
        callback=_remember_format,
        is_eager=True,
    ),
]
Page = Annotated[Path | None, option("--report", metavar="FILE", help="Also write the differences as one HTML page.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
RunsDir = Annotated[
    str, typer.Option("--runs-dir", metavar="FOLDER", envvar="STEPRUN_RUNS_DIR", help="Folder of the run directories.")
]

SweepsDir = Annotated[
    str, typer.Option("--sweeps-dir", metavar="FOLDER", envvar="STEPRUN_SWEEPS_DIR", help="Folder of the sweeps.")
]

CheckpointEvery = Annotated[
    int | None, option("--checkpoint-every", metavar="ROWS", min=1, help="Save the state every so many rows.")
]
Jobs = Annotated[int | None, option("--jobs", "-j", metavar="N", min=1, help="Processes of a sweep.  [the cores]")]
On = Annotated[str, typer.Option("--on", metavar="processes|ray", help="Where the points run.")]
Address = Annotated[str | None, option("--address", metavar="auto|HOST", help="Address of a Ray cluster.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the directory of the run or sweep.")]
Rows = Annotated[
    str | None,
    option(
        "--rows",
        metavar="full|lines|none",
        help="Print every row whole, some rows as lines of a table, or none.  [by the length of the run]",
    ),
]
Columns = Annotated[
    list[str] | None,
    option(
        "--columns",
        metavar="NAMES",
        help="Print only these columns: names or globs with commas between them. May be repeated.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print each row as a JSON object on one line.")]

LIMITS = {
    "file_bytes": "Largest config file.  [4MiB]",
    "nesting": "Deepest nesting of lists and mappings.  [64]",
    "alias_nodes": "Most nodes after YAML aliases are expanded.  [10000]",
    "files": "Most files that `extends` may read.  [100]",
    "nodes": "Most operations in one expression.  [50000]",
    "memory": "Most memory of the run, by estimate and while it runs on the CPU.  [the machine's]",
    "seconds": "Longest time for planning, in seconds.  [3 for `validate`, otherwise 20]",
}
"""Each limit has an option `--max-NAME`. The first four apply to reading a config, the others to planning."""

_COMMA = re.compile(r",(?![^\[]*\])")
"""A comma that is not in brackets."""


@dataclass(frozen=True, slots=True)
class Request:
    """The config that a command line names, with overrides, folders it may read, and limits."""

    config: str  # a path, or `-`
    overrides: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)  # only those that were set


def reads_config(command: Callable[..., None]) -> Callable[..., None]:
    """Decorates a command whose first parameter is a `Request`: replaces it by the options that make a request."""

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        texts = {name: given.pop(f"max_{name}") for name in LIMITS}
        config, folders = config_path(given.pop("config"))
        request = Request(
            config=config,
            overrides=(*_checked(given.pop("overrides") or (), given.get("columns")), *(given.pop("sets") or ())),
            allow=(*(given.pop("allow") or ()), *folders),
            limits={name: amount(name, text) for name, text in texts.items() if text is not None},
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


def _checked(overrides: Sequence[str], columns: Sequence[str] | None) -> Sequence[str]:
    """The overrides of a command line, each in one argument.

    Raises:
        UsageError: there are spaces around a `=`, after a comma, or between the names of `--columns`.
    """
    for place, (text, after) in enumerate(itertools.pairwise(overrides)):
        goes_on = text.endswith(("=", ",")) and "=" not in after and not after.startswith("~")
        if goes_on or after.startswith("="):
            parts = overrides[place : place + (3 if after == "=" else 2)]
            raise UsageError(Problem(f"`{' '.join(parts)}` has spaces", f"write `{''.join(parts)}`"))
    names = [text for text in overrides if "=" not in text and not text.startswith("~")]
    if columns and names:
        hint = f"write `--columns {','.join([*columns, *names])}`"
        raise UsageError(Problem(f"`{names[0]}` is not an override: it has no `=`", hint))
    return overrides


def _parameter(name: str, annotation: object, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation, default=default)


def _limit_option(name: str, text: str) -> object:
    limit = option(f"--max-{name.replace('_', '-')}", metavar="N", help=text)
    return Annotated[str | None, limit]


def names_in(texts: Iterable[str] | None) -> list[str] | None:
    """The names of options such as `--columns 'loss,w[1,2]' --columns f`: loss, w[1,2] and f; None without any."""
    if texts is None:
        return None
    return [name.strip() for text in texts for name in _COMMA.split(text) if name.strip()]


def amount(name: str, text: str) -> int:
    """The number that a count or a size such as `64`, `1_000_000` or `8MiB` means."""
    from runner.config.text.units import bytes_of

    bare = not text[-1:].isalpha()
    found = None if bare and "." in text else bytes_of(f"{text}B" if bare else text)
    if found is None:
        raise UsageError(
            f"--max-{name.replace('_', '-')} is `{text}`: it takes a count such as 10000, or a size such as 8MiB"
        )
    return found


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
