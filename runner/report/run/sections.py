"""The sections of a run's report, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from runner.config.files.run_paths import CONFIG_FILE, MANIFEST_FILE, resolved_run
from runner.errors import UsageError
from runner.record.reading import check_is_run
from runner.report.run.bands import bands
from runner.report.run.curves import curves
from runner.report.run.facts import config, environment
from runner.report.run.norms import norms
from runner.report.run.pictures import pictures
from runner.report.run.stepping.replaying import replays
from runner.report.run.stepping.small import is_small
from runner.report.run.stepping.steps import shared, steps
from runner.report.run.subject import Subject, read_subject
from runner.report.run.top.head import head_of, title_of
from runner.report.section import Report, Section
from runner.report.unreadable import unreadable

BUILDERS: Sequence[Callable[[Subject], Section | None]] = (
    curves,
    steps,
    pictures,
    norms,
    bands,
    config,
    environment,
)
"""Each builds a section, or returns None if the run has nothing for it."""


def report_of_run(path: str | Path, allowed: Sequence[Path] = ()) -> Report:
    """The report of a run; of a damaged one, what can be read, and `problems`.

    Args:
        allowed: folders that the config may read data from, to compute inner values again.
    Raises:
        UsageError: it is not a run directory.
    """
    directory = resolved_run(path)
    check_is_run(directory)
    try:
        subject = read_subject(directory, allowed)
    except UsageError as error:
        return unreadable(directory, "run", MANIFEST_FILE, CONFIG_FILE, error.problems)
    subject = replace(subject, replayed=replays(subject))
    built = [build(subject) for build in BUILDERS]
    if subject.focus is not None or is_small(subject):
        built[:2] = reversed(built[:2])  # the story step by step comes before the curves
    return Report(
        title=title_of(subject),
        head=head_of(subject),
        sections=tuple(section for section in built if section is not None),
        shared=shared(subject),
        problems=subject.problems,
    )
