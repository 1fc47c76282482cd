"""The last sections of a run's report: its config, and the environment and times of the run."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator

from runner.config.files.run_paths import CONFIG_FILE
from runner.report.listing import file_text
from runner.report.markup import block, facts, joined, paragraph, tag, text
from runner.report.run.subject import Subject
from runner.report.run.top.failure import failing_line
from runner.report.section import Section

MOST_FACTS = 200


def config(subject: Subject) -> Section:
    """The command with its overrides, and the resolved config."""
    command = subject.run.manifest.get("command") or []
    overrides = [word for word in command[1:] if "=" in word and not word.startswith("-")]
    said = [tag("h3", text("Command")), block(shlex.join(command[:1000]), "Command")]
    if overrides:
        said.append(facts(("override", override) for override in overrides[:MOST_FACTS]))
    said.append(tag("h3", text("Config, with its overrides applied" if overrides else "Config")))
    own = f"The `{CONFIG_FILE}` of the run also has its name and absolute paths, so its lines may have other numbers."
    said += [paragraph(own, "note"), file_text(subject.run.path, CONFIG_FILE, failing_line(subject))]
    return Section("config", "Config", joined(said))


def environment(subject: Subject) -> Section:
    """The environment, the versions and the times of the run."""
    found = facts(itertools.islice(_facts(subject), MOST_FACTS))
    return Section("environment", "Environment and times", found)


def _facts(subject: Subject) -> Iterator[tuple[str, object]]:
    manifest = subject.run.manifest
    for name in ("started", "ended"):
        if manifest.get(name):
            yield name, manifest[name]
    seconds, compiling = manifest.get("seconds"), manifest.get("compile_seconds")
    if seconds is not None:
        yield "seconds", f"{seconds:,.3f}"
        if seconds and len(subject.rows) > 1:
            yield "rows a second", f"{len(subject.rows) / seconds:,.0f}"
    if compiling is not None:
        yield "of these, compiling", f"{compiling:,.3f}"
    for resumed in manifest.get("resumed") or ():
        yield "resumed", f"at row {resumed.get('row')}, {resumed.get('at')}"
    versions = manifest.get("versions") or {}
    yield from versions.items()
    for name, value in (manifest.get("environment") or {}).items():
        if value is not None and name not in versions:
            yield name.replace("_", " "), value
    git = manifest.get("git") or {}
    if git.get("commit"):
        state = {True: ", with changes", None: ", changes unknown"}.get(git.get("dirty"), "")
        yield "commit", f"{git['commit']}{state}"
    for path, identity in list((manifest.get("data_files") or {}).items())[:MOST_FACTS]:
        yield "data file", f"{path}: {identity.get('bytes', '?')} bytes, sha256 {identity.get('sha256', '?')}"
