"""Finds what was edited in a config since its snapshot was taken: which fields, on which lines."""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from runner.compare.rows.results import FirstDifference
from runner.config import Config
from runner.config.text.nodes import Path, dotted
from runner.errors import Problem
from runner.plan import Plan
from runner.record.checkpoints.config_fields import WITHOUT_BEARING, config_digests, fields_of, value_of

VARIANTS = ("device", "engine")
"""Keys that belong to the environment: their values are no edit of the config."""

OVERRIDE = "override "
"""The prefix of an override's name as a source."""

START = "start"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a config."""

    name: str  # "optimizer.adam.lr", "expression.loss"
    digest: str
    path: Path  # of the value in the file
    line: int = 1  # within a multi-line text


@dataclass(frozen=True, slots=True)
class Edit:
    """A field that differs from the config that the snapshot was taken of."""

    name: str
    kind: str  # "edited", "new", "removed"
    source: str | None = None  # the source that sets it, if not the config's own file: a base or an override
    line: int | None = None  # None if it was removed

    def __str__(self) -> str:
        where = "" if self.line is None else f" (line {self.line})"
        if self.source is not None:
            where = f" ({self.source}{'' if self.source.startswith(OVERRIDE) else f':{self.line}'})"
        return f"`{self.name}` {'was' if self.kind != 'new' else 'is'} {self.kind}{where}"


def field_digests(config: Config) -> dict[str, str]:
    """A digest of every field that affects a run's numbers, by dotted name; each statement of `expression` is one."""
    return {field.name: field.digest for field in _fields(config)}


def edits(config: Config, then: Mapping[str, str], *, first_format: bool = False) -> tuple[Edit, ...]:
    """The fields of a config that differ from `then`, the digests of a snapshot, in the order of the file.

    Args:
        first_format: whether the digests are those of the first format, one for each top-level key.
    """
    if first_format:
        return _edited_keys(config, then)
    found = []
    now = {field.name: field for field in _fields(config)}
    above_then, above_now = _prefixes(then), _prefixes(now)
    for name, field in now.items():
        if then.get(name) != field.digest and (name in then or name not in above_then):
            problem = _problem(config, field)
            kind = "edited" if name in then else "new"
            source = None if problem.source == config.document.source.name else problem.source
            found.append(Edit(name, kind, source, problem.line))
    return (*found, *(Edit(name, "removed") for name in then if name not in now and name not in above_now))


def _prefixes(names: Iterable[str]) -> frozenset[str]:
    """The names above others. If `normal: {}` gets entries, only these are listed as edits, and not `normal`."""
    parts = (name.split(".") for name in names)
    return frozenset(".".join(each[:end]) for each in parts for end in range(1, len(each)))


def explains(edit: Edit, first_difference: FirstDifference, plan: Plan) -> bool:
    """Whether an edited field can cause the first difference."""
    first = first_difference.divergences[0].column
    section, _, rest = edit.name.partition(".")
    if first_difference.place.step == START:
        return section in ("parameters", "constants", "seed", "dtype", "functions")
    match section:
        case "expression":
            return first.role != "value" or _reaches(rest.partition("#")[0], first.name, plan)
        case "metrics":
            name = rest.partition(".")[0]
            return first.name == name or first.name.endswith(f".{name}")
        case "optimizer" | "optimizers":
            return first.role in ("weight", "state") or not _is_before_any_update(first_difference, plan)
        case "parameters":  # if rows have this parameter, its initial value would differ in the row of the start
            return rest.partition(".")[0] not in {column.name for column in plan.columns}
    return True


def _is_before_any_update(first_difference: FirstDifference, plan: Plan) -> bool:
    """Whether the first row that differs is computed before any optimizer step."""
    return plan.log.every == 1 and (first_difference.before is None or first_difference.before.step == START)


def _reaches(name: str, column: str, plan: Plan) -> bool:
    """Whether a named value influences a column, which may be that of a gradient or of an evaluation."""
    value = column.rpartition(".")[2] if column not in plan.lowered.values else column
    if name == value or value == "grad" or value not in plan.lowered.values or name not in plan.lowered.values:
        return True
    from runner.language.graph.computation import computed_with

    return name in computed_with(plan.lowered, [value])


# --- the fields


def _fields(config: Config) -> Iterator[Field]:
    document = config.document
    folder = document.folder()
    for path, node in fields_of(document.root):
        if path[0] in WITHOUT_BEARING or path[0] in VARIANTS or (path[0] == "steps" and "expect" in path):
            continue
        value = value_of(node, path, document)
        if isinstance(value, str) and os.path.isabs(value):
            value = os.path.relpath(value, folder).replace(os.sep, "/")
        if path == ("expression",) and isinstance(value, str):
            yield from _statements(value)
        else:
            yield Field(dotted(path), _digest(repr(value)), path)


def _statements(text: str) -> Iterator[Field]:
    """Yields a field for each statement of the expression, named by what it assigns; ignores comments and spaces."""
    try:
        body = ast.parse(text).body
    except SyntaxError:
        yield Field("expression", _digest(text), ("expression",))
        return
    seen: dict[str, int] = {}
    for statement in body:
        name = _assigned(statement)
        seen[name] = seen.get(name, 0) + 1
        again = f"#{seen[name]}" if seen[name] > 1 else ""
        yield Field(f"expression.{name}{again}", _digest(ast.unparse(statement)), ("expression",), statement.lineno)


def _assigned(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Assign):
        return ast.unparse(statement.targets[0]).strip("()").replace(" ", "")
    return "for" if isinstance(statement, ast.For) else "value"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]


def _problem(config: Config, field: Field) -> Problem:
    within = (field.line, 0, 1) if field.path == ("expression",) else None
    return config.document.problem(field.path, "", at=within)


def _edited_keys(config: Config, then: Mapping[str, str]) -> tuple[Edit, ...]:
    now = {key: digest for key, digest in config_digests(config).items() if key not in VARIANTS}
    if now.pop("single_optimizer", None) is not None:
        now = {"optimizer" if key == "optimizers" else key: digest for key, digest in now.items()}
    return tuple(
        Edit(key, "edited" if key in then and key in now else "new" if key in now else "removed")
        for key in {**then, **now}
        if now.get(key) != then.get(key)
    )
