"""Loads configs from files and from text."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner.config.document import Document
from runner.config.limits import Limits
from runner.config.models import Config
from runner.config.sections.build import build_config, run_name
from runner.config.text.extends import BaseReader, Sandbox
from runner.config.text.likes import with_likes
from runner.config.text.nodes import Path as NodePath
from runner.config.text.nodes import replaced
from runner.config.text.source import Source, decode, read_source, text_source
from runner.errors import ConfigError, Problem


def load(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    limits: Limits | None = None,
    allowed_folders: Sequence[str | Path] = (),
) -> Config:
    """Loads a config from a file, resolves `extends`, and applies `overrides`.

    Args:
        overrides: `name=value`, `a.b.c=value` or `~path`, applied in order; values are YAML.
        allowed_folders: folders that the config may read from, besides its own.
    Raises:
        UsageError: there is no such file.
        ConfigError: the config is not valid; the error lists every problem that was found.
    """
    limits = limits or Limits()
    source = read_source(path, limits)
    return _config(source, Path(path).stem, os.path.realpath(path), overrides, limits, allowed_folders)


def loads(
    text: str | bytes,
    base: str | Path = ".",
    *,
    name: str = "<stdin>",
    overrides: Sequence[str] = (),
    limits: Limits | None = None,
    allowed_folders: Sequence[str | Path] = (),
) -> Config:
    """Loads a config from text; relative paths in it start at the folder `base`.

    Args:
        text: the config; bytes are decoded as UTF-8.
        name: the name of the text in errors.
    Raises:
        ConfigError: the config is not valid; the error lists every problem that was found.
    """
    limits = limits or Limits()
    if isinstance(text, bytes):
        text = decode(name, text)
    source = text_source(text, Path(base), name, limits)
    return _config(source, Path(name).stem.strip("<>"), "", overrides, limits, allowed_folders)


def overridden(config: Config, overrides: Sequence[str], *, limits: Limits | None = None) -> Config:
    """Returns a config with more overrides applied, without reading its files again.

    Raises:
        ConfigError: the config is not valid; the error lists every problem that was found.
    """
    return _build(config.document, overrides, limits or Limits(), [])


def rewritten(config: Config, values: Mapping[NodePath, Mapping[str, Any]]) -> Config:
    """Returns a config in which entries of mappings have other names and values, at the same place in the text.

    Args:
        values: what replaces each entry, by its path: numbers, texts, or tuples of them.
    """
    root = config.document.root
    for path, entries in values.items():
        root = replaced(root, path, entries)
    return _build(replace(config.document, root=root, written=None), [], Limits(), [])


def _config(
    source: Source,
    stem: str,
    resolved: str,
    overrides: Sequence[str],
    limits: Limits,
    allowed_folders: Sequence[str | Path],
) -> Config:
    problems: list[Problem] = []
    sandbox = Sandbox.of(source.folder, allowed_folders)
    reader = BaseReader(limits, sandbox, problems)
    root = reader.tree(source, ((resolved, source.name),))
    if root is None or reader.failed:
        raise _error(problems, [], source, limits, [])
    return _build(Document(root, source, sandbox, run_name(stem)), overrides, limits, problems)


def _build(document: Document, overrides: Sequence[str], limits: Limits, problems: list[Problem]) -> Config:
    """Applies overrides to a document and builds its config; `problems` holds those found while reading."""
    if isinstance(overrides, str):
        raise TypeError(f"`overrides` is a list of texts: write overrides=[{overrides!r}]")
    names: list[str] = []
    root = document.written or document.root
    if overrides:
        from runner.config.text.overrides import apply_override, override_name

        names = [override_name(text) for text in overrides]
        for text in overrides:
            root = apply_override(root, text, document.source, limits, problems)
    before = len(problems)
    resolved = with_likes(root, problems, limits.alias_nodes)
    known = list(problems)
    if len(known) > before:
        raise _error(problems, known, document.source, limits, names)
    written = None if resolved is root else root
    config = build_config(replace(document, root=resolved, written=written), problems, limits.problems)
    if config is None:
        raise _error(problems, known, document.source, limits, names)
    return config


def _error(
    problems: list[Problem], causes: list[Problem], source: Source, limits: Limits, overrides: list[str]
) -> ConfigError:
    """Returns one error with the problems sorted by text: the config first, overrides last; at most `limits.problems`.

    Args:
        causes: problems found before the values were checked. Other problems of the same values, or of values that
            contain them, are left out: they are consequences.
    """
    texts = [source.name, *(problem.source for problem in problems if problem.source not in overrides), *overrides]
    order = {name: index for index, name in enumerate(dict.fromkeys(texts))}
    known = {path for cause in causes for path in _ancestry(cause.path)}
    unique = [each for each in dict.fromkeys(problems) if each.path not in known or each in causes]
    unique.sort(key=lambda problem: (order[problem.source], problem.line or 0, problem.column or 0))
    shown = unique[: limits.problems]
    if len(unique) > len(shown):
        shown.append(Problem("there are more problems than these", "fix these first"))
    return ConfigError(shown)


def _ancestry(path: str) -> list[str]:
    """Returns a dotted path and all its prefixes."""
    parts = path.split(".") if path else []
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
