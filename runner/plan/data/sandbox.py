"""Restricts the files that a config may read: ordinary files below its own folder and the allowed folders."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from fnmatch import fnmatchcase
from io import BufferedReader
from pathlib import Path

from runner.errors import did_you_mean, listing

_WILDCARDS = frozenset("*?[")
_LISTED = 10_000
"""Maximum entries of a folder to search for a similar name."""


class FileFault(Exception):
    """A data file is missing, forbidden or malformed; the caller adds the place in the config."""

    def __init__(
        self, message: str, hint: str | None = None, *, about_columns: bool = False, field: str | None = None
    ) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint
        self.field = field  # the key beside the path that the problem is in, if it is not the path
        self.about_columns = about_columns  # the problem is in the selected columns, not in the file


def locate(text: str, folder: Path, allowed: Iterable[Path] = ()) -> Path:
    """The path of the ordinary file that a config names, with links resolved.

    Args:
        text: the path as written, relative to `folder` or absolute.
        folder: the folder of the config file with the path.
        allowed: additional folders from which reading is allowed.
    Raises:
        FileFault: the file is outside these folders, missing, or not an ordinary file.
    """
    path = permitted(text, folder, allowed)
    try:
        status = path.stat()
    except FileNotFoundError:
        if (Path(folder) / text).is_symlink():
            message = f"{text} is a link to {path}, which is not there"
            raise FileFault(message, "fix the link, or name another file") from None
        raise FileFault(f"there is no file {text}", _nearest_name(path)) from None
    except OSError as error:
        raise FileFault(f"{text} cannot be read: {_reason(error)}", "check the path and its permissions") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
        raise FileFault(f"{text} is {kind}, not an ordinary file", "write the path of a data file")
    return path


def permitted(text: str, folder: Path, allowed: Iterable[Path] = ()) -> Path:
    """The path that a config names, with links resolved; it need not exist.

    Raises:
        FileFault: the path is outside the folders that the config may read.
    """
    try:
        path = (Path(folder) / text).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise FileFault(f"`{text!r}` is not a usable path: {error}", "write the path of a data file") from error
    if not is_allowed(path, (folder, *allowed)):
        hint = "move it below the config's own folder, or allow its folder with --allow FOLDER"
        raise FileFault(f"`{text}` is outside the folders that this config may read", hint)
    return path


def is_allowed(path: Path, folders: Iterable[Path]) -> bool:
    """Whether a path with links resolved is in or below one of the folders."""
    return any(path.is_relative_to(Path(folder).resolve()) for folder in folders)


MOST_FILES = 10_000
"""Maximum files that one glob may match."""

_MOST_ENTRIES = 100_000


def locate_all(text: str, folder: Path, allowed: Iterable[Path] = ()) -> tuple[Path, ...]:
    """The ordinary files that a config names, in the order of their names. The name may be a glob; folders may not.

    A file whose name is written as the glob is that file alone.

    Raises:
        FileFault: no file matches, too many do, or one of them is as `locate` refuses it.
    """
    written = Path(text)
    if _WILDCARDS.isdisjoint(text):
        return (locate(text, folder, allowed),)
    try:
        if os.path.lexists(Path(folder) / written):
            return (locate(text, folder, allowed),)
    except ValueError:
        return (locate(text, folder, allowed),)
    if not _WILDCARDS.isdisjoint(str(written.parent)):
        raise FileFault(f"`{text}` has a glob in the name of a folder", "write the folder, and a glob of its files")
    beside = (Path(folder) / written.parent).resolve()
    if not is_allowed(beside, (folder, *allowed)):
        hint = "move it below the config's own folder, or allow its folder with --allow FOLDER"
        raise FileFault(f"`{text}` is outside the folders that this config may read", hint)
    names = _matching(beside, written.name, text)
    if not names:
        raise FileFault(f"the glob `{text}` matches no file", _beside(beside, written.suffix))
    return tuple(locate(str(written.parent / name), folder, allowed) for name in names)


def _matching(folder: Path, glob: str, text: str) -> list[str]:
    found: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries):
                if count >= _MOST_ENTRIES:
                    raise FileFault(
                        f"the folder of `{text}` has more than {_MOST_ENTRIES:,} files", "use a smaller one"
                    )
                if fnmatchcase(entry.name, glob):
                    found.append(entry.name)
                if len(found) > MOST_FILES:
                    raise FileFault(f"the glob `{text}` matches more than {MOST_FILES:,} files", "merge some of them")
    except OSError as error:
        raise FileFault(f"there is no folder {folder}", "check the path") from error
    return sorted(found)


def open_ordinary(path: Path) -> BufferedReader:
    """Open a file that `locate` returned, if it has not been replaced since.

    Raises:
        FileFault: the file cannot be opened or is no longer an ordinary file, or a link replaced it or a folder above
            it.
    """
    try:
        if os.path.realpath(path) != os.fspath(path):
            raise FileFault(f"{path.name} has been replaced by a link since it was checked", "put the file back")
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise FileFault(f"{path.name} is not an ordinary file", "write the path of a data file")
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        raise FileFault(
            f"{path.name} cannot be read: {_reason(error)}", "check the path and its permissions"
        ) from error
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise FileFault(f"{path.name} is not an ordinary file", "write the path of a data file")
    return file


def _nearest_name(path: Path) -> str:
    folder, names = path.parent, _names_in(path.parent)
    if names is None:
        return f"there is no folder {folder}"
    otherwise = f"{folder} holds {listing(sorted(names), 6)}" if names else f"{folder} is empty"
    return did_you_mean(path.name, names, otherwise) or otherwise


def _beside(folder: Path, suffix: str) -> str:
    """The files of a type in a folder, for a glob that matches none."""
    names = sorted(name for name in _names_in(folder) or () if name.endswith(suffix))
    return f"its folder has {listing(names, 6)}" if names else f"its folder has no `{suffix}` file"


def _names_in(folder: Path) -> list[str] | None:
    """The names of some entries of a folder; None if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for _, entry in zip(range(_LISTED), entries, strict=False)]
    except OSError:
        return None


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
