"""The application: its commands, the short form `steprun CONFIG`, and error handling."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperGroup

from runner import __version__
from runner.cli.commands import (
    applying,
    comparing,
    data_files,
    gradients,
    history,
    inspection,
    plotting,
    reference,
    reporting,
    resuming,
    running,
    snapshots,
    sweeping,
)
from runner.cli.input.completion import complete_config
from runner.cli.input.options import examples
from runner.cli.output.faults import ARGUMENTS_KEY, exit_code_of
from runner.cli.output.printing import say
from runner.errors import Problem, SteprunError, UsageError, nearest

DEFAULT_COMMAND = "run"


class NamedArgument(TyperArgument):
    """An argument that help shows as `CONFIG` or `[KEY=VALUE]...`."""

    def _shown(self) -> str:
        name = str(self.metavar)
        return f"{name if self.required else f'[{name}]'}{'' if self.nargs == 1 else '...'}"

    def get_usage_pieces(self, ctx: Any) -> list[str]:
        """The argument as the usage line shows it."""
        return [self._shown()]

    def get_help_record(self, ctx: Any) -> tuple[str, str] | None:
        """The name and the help text of the argument."""
        return str(self.metavar), self.help or ""


class Commands(TyperGroup):
    """The commands. A first argument that is not a command is the config of `run`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # click's Context moves between typer's versions
        ctx.meta[ARGUMENTS_KEY] = args
        options = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        return super().parse_args(ctx, with_command(args, self.commands, options))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name; its help shows arguments without Python types."""
        command = super().get_command(ctx, cmd_name)
        for parameter in command.params if command is not None else ():
            if isinstance(parameter, TyperArgument):
                parameter.__class__ = NamedArgument
        return command

    def invoke(self, ctx: Any) -> Any:
        """Invoke the command; an error becomes a message on standard error and an exit code."""
        try:
            return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            misspelled = misspelled_command(ctx.meta[ARGUMENTS_KEY], self.commands)
            code = exit_code_of(misspelled if misspelled and isinstance(error, SteprunError) else error, ctx.meta)
            if code is None:
                raise
            raise typer.Exit(code) from error

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """The commands and options that start with `incomplete`, and the configs."""
        item = type(super().shell_complete(ctx, "")[0])
        return [*super().shell_complete(ctx, incomplete), *(item(name) for name in complete_config(incomplete))]


def with_command(arguments: list[str], commands: Collection[str], options: Collection[str]) -> list[str]:
    """Put `run` before `arguments`, unless they start with a command or an option of the application itself."""
    if not arguments:
        return arguments
    first = arguments[0].partition("=")[0]
    if first in commands or first in options:
        return arguments
    return [DEFAULT_COMMAND, *arguments]


def misspelled_command(arguments: Sequence[str], commands: Collection[str]) -> UsageError | None:
    """The fault of a first argument that is neither a command nor a file, as in `steprun shwo linear.yaml`.

    `run` takes such a word for its config, and so fails. This error suggests the nearest command instead.
    """
    name = arguments[0] if arguments else ""
    if not name.isidentifier() or name in commands or Path(name).exists():
        return None
    meant = nearest(name, commands)
    hint = f"did you mean the command `{meant}`?" if meant else "commands are " + ", ".join(sorted(commands))
    config = next((each for each in (f"{name}.yaml", f"{name}.yml") if Path(each).is_file()), None)
    if config is not None:
        hint = f"did you mean `{config}`?"
    if name in ("help", "version"):
        hint = f"write `steprun --{name}`"
    return UsageError(Problem(f"there is no command and no file `{name}`", hint))


def _show_version(value: bool) -> None:
    if value:
        say(f"steprun {__version__}")
        raise typer.Exit


application = typer.Typer(
    cls=Commands,
    name="steprun",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    subcommand_metavar="COMMAND | CONFIG [ARGUMENTS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "steprun configs/linear.yaml",
        "steprun configs/linear.yaml learning_rate=0.1",
        "steprun show configs/linear.yaml",
    ),
)


@application.callback()
def steprun(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Run a training computation from one YAML file, step by step, and record every gradient and weight.

    `steprun CONFIG` is short for `steprun run CONFIG`.
    """


for module in (
    running,
    resuming,
    applying,
    inspection,
    data_files,
    snapshots,
    comparing,
    gradients,
    reference,
    reporting,
    history,
    plotting,
    sweeping,
):
    module.register(application)
