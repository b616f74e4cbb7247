"""Files that are there whole or not at all: the one place that writes and reads the harness's own.

A file is written beside its place, synced, and then takes its name; the folder is synced as well,
because a name belongs to its folder. So a kill, a full disk or a power cut at any moment leaves
either the old content or the new one.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import Damaged, NoSpace, UserError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LOCK = ".lock"
PATIENCE = 2.0
"""Seconds to wait for a lock: a process that was killed a moment ago may still hold it."""


def write_atomically(path: Path, content: bytes | memoryview, keep: Path | None = None) -> None:
    """Write ``content`` to a file beside ``path``, sync it, and give it ``path``'s name.

    What ``path`` held before takes the name ``keep``, where that is given.

    Raises:
        NoSpace: the disk is full; what ``path`` held before is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with disk_errors(path):
        try:
            with open(partial, "wb") as file:
                file.write(content)
                sync(file)
            if keep is not None and path.is_file():
                os.replace(path, keep)
            os.replace(partial, path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; bytes of a file name that are no text are written as ``\\udcXX``."""
    write_atomically(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, content: Any) -> None:
    """Write JSON. NaN and infinities become null, because JSON has no word for them.

    File names that are not UTF-8 come back from :func:`read_json` as they were: what
    :func:`write_text` puts in place of their odd bytes is JSON's own escape.
    """
    text = json.dumps(_finite(content), indent=1, allow_nan=False, ensure_ascii=False)
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Read what :func:`write_json` wrote.

    Raises:
        Damaged: the file is not whole.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise Damaged(path, f"is damaged ({error})") from error


def append(path: Path, text: str) -> None:
    """Add ``text`` to the end of a file; it is on the disk when this returns."""
    with path.open("a", newline="", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        sync(file)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk into an error that names what was being written.

    Raises:
        NoSpace: the disk is full, or a limit of the system is reached.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise NoSpace(f"no space left to write {error.filename or path}") from error


@contextmanager
def locked(folder: Path, busy: str) -> Iterator[None]:
    """Hold the folder for this process alone; the system frees it even after a kill.

    Raises:
        UserError: another process holds it; ``busy`` is the message.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "a") as file:
        limit = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > limit:
                    raise UserError(busy) from None
                time.sleep(0.05)
                continue
            except OSError:
                pass  # Some network file systems have no locks; a run there goes without one.
            break
        yield


def is_empty(folder: Path) -> bool:
    """Whether the folder is absent or holds nothing but a lock."""
    return not folder.is_dir() or all(path.name == LOCK for path in folder.iterdir())


def folder_name(path: str | Path) -> str:
    """The last part of a folder's path, which ``.`` and ``..`` do not show themselves."""
    return Path(os.path.abspath(path)).name or "root"


def printable(name: str) -> str:
    """A file name as text that every writer takes: bytes that are not UTF-8 as ``\\udcXX``."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def sync(file: Any) -> None:
    """Return when the content of an open file is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content
