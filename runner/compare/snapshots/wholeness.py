"""Rejects files that are not a complete snapshot: empty, cut off, with a merge conflict, or of an unknown format."""

from __future__ import annotations

import re

from runner.compare.snapshots.model import FIRST_FORMAT, FORMAT
from runner.compare.snapshots.writing import END
from runner.config.text.source import Source, whole_file_problem
from runner.errors import SnapshotError

AGAIN = "take it again: remove the file, then `steprun snapshot`"

_CONFLICT = re.compile(r"^(?:<{7}|={7}|>{7})(?= |$)", re.MULTILINE)


def check_whole(source: Source) -> None:
    """Check that a file is a complete snapshot, before it is parsed.

    Raises:
        SnapshotError: it is not; the problem names the place.
    """
    text = source.text.rstrip()
    if not text:
        raise SnapshotError(whole_file_problem(source.name, "the snapshot is empty", AGAIN))
    found = re.search(r"^format: *(\S+) *$", source.text, re.MULTILINE)
    if found and found[1] not in (str(FORMAT), str(FIRST_FORMAT)):
        message = f"the snapshot has format {found[1]}, and this version reads {FIRST_FORMAT} and {FORMAT}"
        raise SnapshotError(source.problem(*found.span(1), message, "update steprun, or take the snapshot again"))
    conflict = _CONFLICT.search(text)
    if conflict:
        hint = "keep one side: `git checkout --ours` or `--theirs` and this file, then `steprun check`"
        raise SnapshotError(source.problem(*conflict.span(), "a merge has left a conflict here", hint))
    if not text.endswith(f"\n{END}"):
        start, message, hint = text.rfind("\n") + 1, f"the snapshot is cut off: its last line is not `{END}`", AGAIN
        whole, mark, _ = text.partition(f"\n{END}\n")
        if mark:
            start, message, hint = len(whole + mark), f"the snapshot ends at `{END}`, and more follows", "remove it"
        raise SnapshotError(source.problem(start, len(text), message, hint))
