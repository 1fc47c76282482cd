"""The page of a run or a sweep whose manifest cannot be read, and what a page says of another version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import runner
from runner.config.files.safe_files import LARGEST_JSON, Folder, parse_json
from runner.errors import Problem
from runner.record.manifest import other_version
from runner.report.listing import file_text
from runner.report.markup import Markup, alert, facts, joined, paragraph, tag, text
from runner.report.section import Report, Section


def unreadable(directory: Path, noun: str, manifest: str, config: str, problems: Sequence[Problem]) -> Report:
    """A page that says what is wrong, with the config.

    Args:
        noun: what the directory is: "run".
        manifest, config: the names of the two files.
    """
    name = directory.parent.name
    said = [tag("h1", text(name)), facts([(noun, directory.name)])]
    said += [alert(problem.message, problem.hint) for problem in problems]
    said += version_note(_content(directory, manifest))
    section = Section("config", "Config", file_text(directory, config))
    return Report(f"{name} {directory.name}", joined(said), (section,), problems=tuple(problems))


def version_note(manifest: Mapping[str, Any]) -> list[Markup]:
    """A sentence about the version that recorded a run or a sweep; nothing if it is this one, or is not known."""
    version = other_version(manifest)
    if version is None:
        return []
    return [paragraph(f"steprun {version} recorded it; this page is by steprun {runner.__version__}.", "note")]


def _content(directory: Path, manifest: str) -> Mapping[str, Any]:
    """What a manifest has that is not one; empty if it is no mapping."""
    try:
        with Folder(directory) as folder:
            content = parse_json(folder.read(manifest, LARGEST_JSON))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
