"""Reads the texts of a config, within limits: files, standard input and overrides."""

from __future__ import annotations

import bisect
import codecs
import os
import re
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from runner.config.limits import Limits
from runner.errors import ConfigError, Mark, Problem, UsageError, nearest

LONGEST_MESSAGE = 500
"""The most characters of a message."""

_CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_OTHER_UNPRINTABLE = (
    "\ufeff\ufffe\uffff"  # not in the pattern: compiling it with characters beyond Latin takes milliseconds
)


@dataclass(frozen=True, eq=False, repr=False)
class Source:
    """A text with its name; places in it are offsets in characters."""

    name: str
    text: str
    folder: Path
    """The folder where relative paths in this text start."""
    is_override: bool = False

    @cached_property
    def line_starts(self) -> list[int]:
        """The offset of each line; `str.splitlines` breaks lines where libyaml does, except at control characters."""
        starts = [0]
        for line in self.text.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        return starts if not self.text or self.text[-1] in "\r\n\x85\u2028\u2029" else starts[:-1]

    def mark(self, offset: int) -> Mark:
        line = bisect.bisect_right(self.line_starts, offset)
        return Mark(self.name, line, offset - self.line_starts[line - 1] + 1)

    @cached_property
    def _excerpts(self) -> dict[int, str]:
        """A cache of lines, so that a thousand problems on one long line share its text."""
        return {}

    def excerpt(self, line: int) -> str:
        """Returns the text of a line, counted from 1, without its line break."""
        if line not in self._excerpts:
            self._excerpts[line] = self._line(line)
        return self._excerpts[line]

    def _line(self, line: int) -> str:
        start = self.line_starts[line - 1]
        end = self.line_starts[line] if line < len(self.line_starts) else len(self.text)
        return self.text[start:end].rstrip("\r\n\x85\u2028\u2029")

    def problem(self, start: int, end: int, message: str, hint: str | None = None, path: str = "") -> Problem:
        """Returns a problem that marks the characters from `start` to `end`, or to the end of the line."""
        mark = self.mark(start)
        excerpt = self.excerpt(mark.line)
        width = max(1, min(end - start, len(excerpt) - mark.column + 1))
        return Problem(one_line(message), hint and one_line(hint), mark, one_line(path), excerpt, width)


def whole_file_problem(name: str, message: str, hint: str | None = None, path: str = "") -> Problem:
    """Returns a problem of a whole file, placed at its beginning."""
    return Problem(one_line(message), hint and one_line(hint), Mark(name, 1, 1), path)


def one_line(text: str) -> str:
    """Returns text made safe for a terminal: one line, at most `LONGEST_MESSAGE` characters, all printable."""
    if len(text) > LONGEST_MESSAGE:
        text = text[:LONGEST_MESSAGE] + "…"
    return text if text.isprintable() else "".join(char if char.isprintable() else "�" for char in text)


def read_source(path: str | Path, limits: Limits, *, name: str | None = None, ordinary: bool = False) -> Source:
    """Reads a config file.

    Args:
        name: the name of the file in errors; its path by default.
        ordinary: whether to reject pipes and devices.
    Raises:
        UsageError: there is no such file, or it cannot be read.
        ConfigError: the file is too large, not UTF-8, or contains unprintable characters.
    """
    name = str(path) if name is None else name
    try:
        with open(path, "rb", opener=_open_without_waiting if ordinary else None) as file:
            status = os.fstat(file.fileno())
            if ordinary and not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{name} is not an ordinary file")
            if status.st_size > limits.file_bytes:
                raise ConfigError(_too_large(name, f"the file has {status.st_size:,} bytes", limits))
            data = file.read(limits.file_bytes + 1)
    except FileNotFoundError as error:
        linked = f"{name} is a link to {os.path.realpath(path)}, which is not there" if os.path.islink(path) else None
        raise UsageError(linked or Problem(f"there is no file {name}", _nearest_config(path))) from error
    except IsADirectoryError as error:
        raise UsageError(f"{name} is a folder, not a config file") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(f"cannot read {name}: {reason.lower()}") from error
    if len(data) > limits.file_bytes:
        raise ConfigError(_too_large(name, f"there are more than {limits.file_bytes:,} bytes", limits))
    return text_source(decode(name, data), Path(path).parent, name, limits)


def text_source(text: str, folder: Path, name: str, limits: Limits, *, is_override: bool = False) -> Source:
    """Returns a source from text in memory, within the same limits as a file."""
    if len(text) > limits.file_bytes or len(text.encode("utf-8", "surrogatepass")) > limits.file_bytes:
        raise ConfigError(_too_large(name, "the text is too long", limits))
    source = Source(name, text.removeprefix("\ufeff"), folder, is_override)
    at = _first_unprintable(source.text)
    if at is not None:
        char = source.text[at]
        what = "a NUL byte" if char == "\0" else f"the unprintable character U+{ord(char):04X}"
        raise ConfigError(source.problem(at, at + 1, f"{what} in the text", "remove it: a config is plain text"))
    return source


def _first_unprintable(text: str) -> int | None:
    """Returns the offset of the first character that YAML never allows, or None."""
    found = [text.find(char) for char in _OTHER_UNPRINTABLE]
    control = _CONTROL.search(text)
    if control:
        found.append(control.start())
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        found.append(error.start)
    return min((at for at in found if at >= 0), default=None)


def _nearest_config(path: str | Path) -> str | None:
    folder, name = os.path.split(path)
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return None
    found = nearest(name, (each for each in names if each.endswith((".yaml", ".yml"))))
    return f"did you mean `{os.path.join(folder, found)}`?" if found else None


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def decode(name: str, data: bytes) -> str:
    """Decodes the bytes of a config; a ConfigError names the first byte that is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = Source(name, data[: error.start].decode("utf-8"), Path())
        place = before.mark(len(before.text))
        rest = data[error.start : error.start + 200].decode("utf-8", "replace").splitlines()[0]
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise ConfigError(whole_file_problem(name, "the file is UTF-16", "save it as UTF-8")) from error
        problem = Problem(
            f"the byte 0x{data[error.start]:02x} is not UTF-8 (byte {error.start:,} of the file)",
            "save the file as UTF-8",
            place,
            excerpt=before.excerpt(place.line) + rest,
        )
        raise ConfigError(problem) from error


def _too_large(name: str, message: str, limits: Limits) -> Problem:
    return whole_file_problem(
        name,
        f"{message}, and a config may have {limits.file_bytes:,}",
        "keep large tensors in a data file (`file:`), or raise the limit with --max-file-bytes",
    )
