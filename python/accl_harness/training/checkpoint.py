"""Checkpoints that are there whole or not at all, read without running any code in them."""

from __future__ import annotations

import errno
import io
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError

FORMAT = 1
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def checkpoint_path(run: Path) -> Path:
    """The run's last checkpoint."""
    return run / "checkpoints" / "last.pt"


def save_checkpoint(run: Path, state: dict[str, Any]) -> None:
    """Replace the run's checkpoint by ``state`` (tensors, numbers, strings and containers).

    The new one is complete on the disk before it takes the old one's name, so a kill or a full
    disk at any moment leaves the old one.

    Raises:
        UserError: the disk is full.
    """
    path = checkpoint_path(run)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    write_atomically(path, buffer.getbuffer())


def load_checkpoint(run: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """The run's last checkpoint, or None where there is none.

    Raises:
        UserError: the file is damaged or of another version.
    """
    path = checkpoint_path(run)
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
        # torch's own message would advise to load it without weights_only.
        raise UserError(
            f"{path} cannot be read as a checkpoint, it is damaged: put a copy in its place, or "
            "delete it to train anew"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint of this version (format {FORMAT})")
    return state


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write ``content`` to a file beside ``path``, sync it, and give it ``path``'s name.

    Raises:
        UserError: the disk is full; what ``path`` held before is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with disk_errors(path):
        try:
            with open(partial, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
    _sync_folder(path.parent)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk into a UserError that names what was being written."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise UserError(
            f"no space left to write {error.filename or path}; "
            "the last checkpoint is kept: make room and go on with --resume"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make the new name last: a file's name belongs to its folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
