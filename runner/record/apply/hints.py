"""Hints for a person who has a run and a file, and whose config is that of the run."""

from __future__ import annotations

import re

_OF_A_TABLE = re.compile(r"`(?P<key>missing|delimiter|decimal|quote|comment|encoding|header): (?P<value>[^`]+)`")
_OF_THE_RUN = re.compile(r"`(?:classes|one_hot|fill|dates|dtype|missing|null)\b|to the classes")
_ALTERNATIVE = re.compile(r", or .*")


def for_a_file(hint: str | None, source: str) -> str | None:
    """A hint about a data source as one about the options of `apply`.

    Keys that say how a table is written become options. The run decides what its columns mean, so all that is left
    there is to correct the file.
    """
    if hint is None:
        return None
    found = _OF_A_TABLE.search(hint)
    if found is not None:
        option = f"--data {source}.{found['key']}='{found['value']}'"
        return _ALTERNATIVE.sub("", hint[: found.start()] + option + hint[found.end() :])
    return "correct the file: the columns mean what they meant in the run" if _OF_THE_RUN.search(hint) else hint
