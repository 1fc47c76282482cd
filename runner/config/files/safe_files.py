"""Reads, writes and removes files in a folder with untrusted content.

A name is one component of a path. The functions look it up below the folder's own handle and follow no link. So they
never read, write or remove anything outside the folder, even if another process changes it at the same time.
They open regular files only: opening a pipe may block, and opening a device may have side effects.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Any, Self

MIB = 1 << 20
Content = bytes | memoryview | Iterable[bytes | memoryview]
"""What is written to a file: its bytes, or pieces of them in order."""

LARGEST_JSON = 32 * MIB
"""The most bytes of a manifest, or of the JSON of a checkpoint."""

MOST_VALUES = 2_000_000
"""The most values in one JSON file: a value takes as little as two bytes there, and a hundred in memory."""

DEEPEST = 8
"""The most levels of folders that are removed at once."""

_LOCK_INTERVAL = 0.01  # seconds between two attempts to lock

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_CLOSE_ON_EXEC = getattr(os, "O_CLOEXEC", 0)
_READ = os.O_RDONLY | _CLOSE_ON_EXEC | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | _CLOSE_ON_EXEC
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _CLOSE_ON_EXEC
_ANCHORED = os.open in os.supports_dir_fd
"""Whether names can be looked up below a handle. On Windows they cannot, and are joined to the folder's path."""

_TEMPORARY = re.compile(r"\.steprun-[0-9a-f]{16}\.writing")


class Refused(OSError):
    """A file or folder of a kind that is never opened; `strerror` names the kind: "it is a link"."""


class Busy(OSError):
    """Another process holds the lock of a folder."""


class Folder:
    """An open folder; use it in a `with` statement.

    Every method takes the name of an entry, one component of a path, and raises OSError. It raises `Refused` if the
    name is not one component, or if the entry is a link or not a regular file.

    Attributes:
        path: the path as given, for messages.
    """

    __slots__ = ("_descriptor", "_readable", "path")

    def __init__(self, path: str | Path) -> None:
        """Open a folder; links in `path` itself are followed.

        Raises:
            OSError: the folder does not exist, or cannot be opened.
        """
        self.path = Path(path)
        self._descriptor, self._readable = _open_folder(self.path, None, _FOLDER)

    def folder(self, name: str, *, create: bool = False) -> Folder:
        """Open the folder `name` in this one; the caller closes it. With `create`, make it if it does not exist."""
        self._check(name)
        if create:
            with suppress(FileExistsError):
                os.mkdir(self._entry_path(name), dir_fd=self._descriptor)
        status = self.status(name)
        if not stat.S_ISDIR(status.st_mode):
            raise _refused(status, "not a folder")
        found = Folder.__new__(Folder)
        found.path = self.path / name
        found._descriptor, found._readable = _open_folder(
            self._entry_path(name), self._descriptor, _FOLDER | _NO_FOLLOW
        )
        return found

    def make_folder(self, name: str) -> None:
        """Make a new folder.

        Raises:
            FileExistsError: an entry of this name exists, possibly a link.
        """
        self._check(name)
        os.mkdir(self._entry_path(name), dir_fd=self._descriptor)

    def names(self, suffix: str = "") -> list[str]:
        """The sorted names of the regular files that end with `suffix`; links and other entries are left out."""
        with os.scandir(self.path if self._descriptor is None else self._descriptor) as entries:
            return sorted(
                entry.name for entry in entries if entry.name.endswith(suffix) and entry.is_file(follow_symlinks=False)
            )

    def status(self, name: str) -> os.stat_result:
        """The status of the entry itself; a link is not followed."""
        self._check(name)
        return os.stat(self._entry_path(name), dir_fd=self._descriptor, follow_symlinks=False)

    def holds(self, name: str) -> bool:
        """Whether a regular file of this name exists."""
        try:
            return stat.S_ISREG(self.status(name).st_mode)
        except FileNotFoundError:
            return False

    def open(self, name: str, limit: int | None = None) -> BufferedReader:
        """Open a regular file for reading.

        Args:
            limit: the size of the largest file to open, in bytes.
        """
        _check_ordinary(self.status(name), limit)  # before opening: opening a device may have side effects
        descriptor = os.open(self._entry_path(name), _READ | _NO_FOLLOW, dir_fd=self._descriptor)
        try:
            _check_ordinary(os.fstat(descriptor), limit)
            return os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise

    def read(self, name: str, limit: int) -> bytes:
        """The content of a regular file of at most `limit` bytes."""
        with self.open(name, limit) as file:
            return _content(file, limit)

    def write(
        self, name: str, content: Content, *, through: Folder | None = None, synced: bool = True, named: bool = True
    ) -> None:
        """Write a file atomically: a reader finds either the old content or the new one, also after a crash.

        An existing entry of this name is replaced; if it is a link, the link is replaced and not its target. The
        temporary file has an unpredictable name, and is created exclusively.

        Args:
            through: the folder of the temporary file, on the same file system; this one by default.
            synced: whether the file survives a power failure once this returns, or only a crash of this process.
            named: whether its name does, too; otherwise the next sync of the folder makes it durable.
        Raises:
            OSError: nothing at `name` changed, and the temporary file is removed.
        """
        self._check(name)
        temporary_folder = through or self
        temporary, descriptor = temporary_folder._temporary()
        try:
            try:
                _write_all(descriptor, content)
                if synced:
                    os.fsync(descriptor)
                os.replace(
                    temporary_folder._entry_path(temporary),
                    self._entry_path(name),
                    src_dir_fd=temporary_folder._descriptor,
                    dst_dir_fd=self._descriptor,
                )
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(temporary_folder._entry_path(temporary), dir_fd=temporary_folder._descriptor)
                raise
        finally:
            os.close(descriptor)  # releases the lock that keeps `remove_leftovers` away
        if synced and named:
            self.sync()

    def remove(self, name: str) -> None:
        """Remove a file if it exists. A link is removed itself, never its target."""
        self._check(name)
        with suppress(FileNotFoundError):
            os.unlink(self._entry_path(name), dir_fd=self._descriptor)

    def clear(self, last: str | None = None, *, depth: int = DEEPEST) -> None:
        """Remove everything in this folder. Links are removed themselves, never their targets.

        Args:
            last: the entry that is removed after all others, so that an interrupted removal can be repeated.
            depth: the most levels of folders below this one.
        Raises:
            Refused: there are more levels.
        """
        with os.scandir(self.path if self._descriptor is None else self._descriptor) as entries:
            listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_folder in sorted(listed, key=lambda entry: (entry[0] == last, entry)):
            if not is_folder:
                self.remove(name)
            elif depth:
                with self.folder(name) as inner:
                    inner.clear(depth=depth - 1)
                self.remove_folder(name)
            else:
                raise Refused(errno.ELOOP, "its folders nest too deeply")

    def remove_folder(self, name: str) -> None:
        """Remove an empty folder.

        Raises:
            OSError: it is a link, not a folder, or not empty.
        """
        self._check(name)
        os.rmdir(self._entry_path(name), dir_fd=self._descriptor)

    def remove_leftovers(self) -> list[str]:
        """Remove the temporary files of processes that were killed while writing, and return their names.

        A file that is still being written is left alone: its writer holds its lock.
        """
        removed = []
        for name in self.names():
            if _TEMPORARY.fullmatch(name) and self._remove_leftover(name):
                removed.append(name)
        return removed

    def sync(self) -> None:
        """Make the names in this folder durable, as far as the system allows."""
        if self._descriptor is not None and self._readable:
            os.fsync(self._descriptor)

    @contextmanager
    def locked(self, wait: float = 0.0) -> Iterator[None]:
        """Hold the lock of this folder, against other processes and other `Folder` objects.

        The system releases the lock when the process ends, however it ends. Without locks in the file system, this
        does nothing.

        Args:
            wait: seconds to wait for the lock.
        Raises:
            Busy: the lock is still held elsewhere.
        """
        if self._descriptor is None or not self._readable:
            yield
            return
        deadline = time.monotonic() + wait
        while (acquired := _lock(self._descriptor)) is None:
            if time.monotonic() >= deadline:
                raise Busy(errno.EWOULDBLOCK, "another process is writing to it")
            time.sleep(_LOCK_INTERVAL)
        try:
            yield
        finally:
            if acquired and self._descriptor is not None:
                _unlock(self._descriptor)

    def close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check(self, name: str) -> None:
        if name in ("", ".", "..") or "/" in name or "\0" in name or os.path.basename(name) != name:
            raise Refused(errno.EINVAL, f"{name!r} is not the name of a file")
        if _ANCHORED and self._descriptor is None:
            raise ValueError(f"the folder {self.path} is closed")

    def _entry_path(self, name: str) -> str:
        return name if self._descriptor is not None else os.path.join(self.path, name)

    def _temporary(self) -> tuple[str, int]:
        """Create an empty file, and return its name and a descriptor that holds its lock."""
        while True:
            temporary = f".steprun-{secrets.token_hex(8)}.writing"
            descriptor = os.open(self._entry_path(temporary), _CREATE, 0o666, dir_fd=self._descriptor)
            if _lock(descriptor) is not None and os.fstat(descriptor).st_nlink:
                return temporary, descriptor
            os.close(descriptor)  # `remove_leftovers` of another process was faster

    def _remove_leftover(self, name: str) -> bool:
        try:
            with self.open(name) as file:
                if not _lock(file.fileno()):
                    return False
                os.unlink(self._entry_path(name), dir_fd=self._descriptor)
        except OSError:
            return False  # already removed, or not ours to remove
        return True


def parse_json(data: bytes) -> Any:
    """Parse an untrusted JSON text.

    Raises:
        ValueError: the text is not JSON, nests too deeply, or contains more values than any file of steprun.
    """
    if sum(map(data.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise ValueError("it contains too many values")
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error


def _open_folder(path: str | Path, below: int | None, flags: int) -> tuple[int | None, bool]:
    """The handle of a folder, and whether the folder can be listed, synced and locked."""
    if not _ANCHORED:
        return None, False
    try:
        return os.open(path, flags, dir_fd=below), True
    except PermissionError:
        if not hasattr(os, "O_PATH"):
            raise
        return os.open(path, flags | os.O_PATH, dir_fd=below), False  # it can be searched and written, but not listed


def _content(file: BufferedReader, limit: int) -> bytes:
    """The content of a file; raises `Refused` if it exceeds `limit`. Allocates memory for the file's size only."""
    size = min(os.fstat(file.fileno()).st_size, limit)
    content = file.read(size + 1)
    if len(content) > size:  # it has grown since, or reports no size
        content += file.read(limit + 1 - len(content))
    if len(content) > limit:
        raise _too_large(len(content), limit)
    return content


def _check_ordinary(status: os.stat_result, limit: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _refused(status, "not an ordinary file")
    if limit is not None and status.st_size > limit:
        raise _too_large(status.st_size, limit)


def _refused(status: os.stat_result, otherwise: str) -> Refused:
    if stat.S_ISLNK(status.st_mode):
        return Refused(errno.ELOOP, "it is a link")
    if stat.S_ISDIR(status.st_mode):
        return Refused(errno.EISDIR, "it is a folder")
    if stat.S_ISREG(status.st_mode):
        return Refused(errno.ENOTDIR, f"it is {otherwise}")
    return Refused(errno.EINVAL, "it is a pipe, socket or device")


def _too_large(size: int, limit: int) -> Refused:
    return Refused(errno.EFBIG, f"it has {size:,} bytes, and at most {limit:,} are read")


def _write_all(descriptor: int, content: Content) -> None:
    for piece in (content,) if isinstance(content, bytes | memoryview) else content:
        view = memoryview(piece)
        while view:
            view = view[os.write(descriptor, view) :]


def _lock(descriptor: int) -> bool | None:
    """Lock an open file or folder: True if locked, None if the lock is held elsewhere, False without locks."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError:
        return False
    return True


def _unlock(descriptor: int) -> None:
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_UN)
