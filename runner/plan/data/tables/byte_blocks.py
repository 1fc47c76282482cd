"""The bytes of a text table in blocks of whole rows, as UTF-8, without comment lines."""

from __future__ import annotations

import bisect
import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy

from runner.config import Dialect
from runner.plan.data.sandbox import FileFault, open_ordinary

BLOCK_BYTES = 2 << 20
"""Bytes of a block, unless its first row is longer."""

LONGEST_ROW = 16 << 20
"""Maximum bytes of one row."""

COUNTED_BY_NUMPY = 1 << 16
"""The least bytes in which numpy counts line ends: it takes a quarter of the time of `bytes.count`."""

_UTF8 = ("utf_8", "utf_8_sig", "utf-8")


@dataclass(frozen=True, slots=True)
class Block:
    """Whole rows of a text table."""

    content: bytes  # UTF-8
    line: int  # of its first line in the file, from 1
    cut: tuple[int, ...]  # for each comment line that was cut, the number of remaining lines before it
    unusual: bool  # whether quotes are in places where only Python's reader follows RFC 4180

    def line_of(self, number: int) -> int:
        """The line in the file of a line of the block; both count from 1."""
        return self.line - 1 + number + bisect.bisect_left(self.cut, number)


def byte_blocks(path: Path, dialect: Dialect, delimiter: str, size: int = BLOCK_BYTES) -> Iterator[Block]:
    """Yields the rows of a text table in blocks, each of about `size` bytes.

    Raises:
        FileFault: a byte does not belong to the encoding, a row is too long, or the file cannot be read.
    """
    quotes = _Quotes(dialect, delimiter)
    comment = None if dialect.comment is None else dialect.comment.encode()
    line, waiting = 1, b""
    with open_ordinary(path) as file:
        for piece, ended in _with_last(_decoded(file, path.name, dialect.encoding, size)):
            end = len(piece) if ended else quotes.end_of_rows(waiting, piece)
            if end == 0:
                waiting += piece
                if len(waiting) > LONGEST_ROW:
                    message = f"a row of {path.name} has more than {LONGEST_ROW >> 20} MiB: it begins in line {line}"
                    raise FileFault(message, "close the quote in it, or write shorter rows")
                continue
            rows = b"".join((waiting, memoryview(piece)[:end]))
            waiting = piece[end:]
            lines = _lines_in(rows)
            rows, cut = (rows, ()) if comment is None else _without_comments(rows, comment, quotes)
            if rows:
                yield Block(rows, line, cut, quotes.unusual(rows) or quotes.open_after(rows))
            line += lines


def _with_last(pieces: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yields each piece with whether it is the last."""
    before: bytes | None = None
    for piece in pieces:
        if before is not None:
            yield before, False
        before = piece
    if before is not None:
        yield before, True


def _decoded(file: IO[bytes], name: str, encoding: str, size: int) -> Iterator[bytes]:
    """Yields the bytes of a file as UTF-8, without a byte order mark."""
    decoder = codecs.getincrementaldecoder("utf-8" if encoding in _UTF8 else encoding)("strict")
    plain, read = encoding in _UTF8, 0
    while True:
        piece = file.read(size)
        if (
            (plain or encoding == "ascii")
            and piece
            and piece.isascii()
            and b"\0" not in piece
            and decoder.getstate()[0] == b""
        ):
            read += len(piece)
            yield piece
            continue
        pending = len(decoder.getstate()[0]) if plain or encoding.startswith("utf") else 0
        try:
            text = decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            shown = "UTF-8" if plain else encoding.replace("_", "-")
            message = f"{name} is not {shown}: {error.reason} at byte {read - pending + error.start}"
            likely = "utf-8" if encoding == "ascii" else "latin-1"
            if read == 0 and piece.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                likely = "utf-16"
            raise FileFault(message, f"write its encoding, such as `encoding: {likely}`") from error
        except UnicodeError as error:  # utf-16 without a mark has no place
            message = f"{name} has no byte order mark, and {encoding.replace('_', '-')} begins with one"
            likely = "utf-16-le" if b"\0" in piece else "utf-8"
            raise FileFault(message, f"write its encoding, such as `encoding: {likely}`") from error
        if read == 0:
            text = text.removeprefix("\ufeff")
        if "\0" in text:
            place = read - pending + len(text[: text.index("\0")].encode(encoding, "replace"))
            raise FileFault(f"{name} has a NUL byte at byte {place}", "write its encoding, such as `encoding: utf-16`")
        read += len(piece)
        if text:
            yield text.encode()
        if not piece:
            return


class _Quotes:
    """Where rows end, given that a quoted cell may contain line ends."""

    def __init__(self, dialect: Dialect, delimiter: str) -> None:
        self._quote = None if dialect.quote is None else dialect.quote.encode()
        self._dialect, self._delimiter = dialect, delimiter
        if self._quote is not None:
            quote, edge = re.escape(self._quote), re.escape(delimiter.encode()) + rb"\r\n"
            self._inside = re.compile(  # begins with the quote, so that the search skips everything else
                rb"%b(?:(?<=[^%b%b]%b)|(?<![^%b]%b)%b)[^%b%b]"
                % (quote, quote, edge, quote, edge, quote, quote, quote, edge)
            )

    def unusual(self, content: bytes) -> bool:
        """Whether a quote is neither at the start nor at the end of a cell."""
        return self._quote is not None and self._quote in content and self._inside.search(content) is not None

    def open_after(self, content: bytes) -> bool:
        return self._quote is not None and self._quote in content and bool(content.count(self._quote) % 2)

    def end_of_rows(self, before: bytes, piece: bytes) -> int:
        """The offset in a piece after the last whole row of `before` and the piece; 0 if no row ends in the piece."""
        end = piece.rfind(b"\n") + 1 or piece.rfind(b"\r", 0, -1) + 1
        if end == 0 or self._quote is None or (self._quote not in piece and self._quote not in before):
            return end
        content = before + piece[:end]
        if not (self.unusual(content) or self.open_after(content)):
            return end
        lines = csv.reader(
            io.StringIO(content.decode(errors="replace"), newline=""),
            delimiter=self._delimiter,
            quotechar=self._dialect.quote,
            strict=True,
        )
        whole = 0
        try:
            for _ in lines:
                whole = lines.line_num
        except csv.Error:
            pass  # an open quote: the rows before it are whole
        return max(0, _offset_after(content, whole) - len(before))


def _offset_after(content: bytes, lines: int) -> int:
    offset = 0
    for _ in range(lines):
        offset = content.find(b"\n", offset) + 1
    return offset


def _lines_in(content: bytes) -> int:
    if len(content) < COUNTED_BY_NUMPY:
        return content.count(b"\n") or content.count(b"\r")
    values = numpy.frombuffer(content, dtype=numpy.uint8)
    return int(numpy.count_nonzero(values == ord("\n")) or numpy.count_nonzero(values == ord("\r")))


def _without_comments(rows: bytes, comment: bytes, quotes: _Quotes) -> tuple[bytes, tuple[int, ...]]:
    """The rows without lines that begin with the comment text, and where those were."""
    if not rows.startswith(comment) and b"\n" + comment not in rows:
        return rows, ()
    kept: list[bytes] = []
    cut: list[int] = []
    inside = False
    for line in rows.splitlines(keepends=True):
        if not inside and line.startswith(comment):
            cut.append(len(kept))
        else:
            kept.append(line)
            inside ^= quotes.open_after(line)
    return b"".join(kept), tuple(cut)
