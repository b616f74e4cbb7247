"""Which data a run belongs to: a digest of the files, so that the folder itself may move."""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import Path

from .formats import suffix_of

_CHUNK = 1 << 20


def fingerprint(root: str | Path, masks: str = "masks") -> str:
    """Digest of names and contents of a data set's images, masks, weak labels, reference masks."""
    root = Path(root)
    digest = hashlib.blake2b(digest_size=16)
    for split in ("train", "test"):
        for kind in ("images", masks, "weak", "references"):
            folder = root / split / kind
            # The mask folder's name is an option of its own.
            role = "masks" if kind == masks else kind
            for path in sorted(folder.iterdir(), key=_name) if folder.is_dir() else ():
                if path.name.startswith(".") or not suffix_of(path) or not path.is_file():
                    continue
                digest.update(f"{split}/{role}/".encode() + _name(path))
                digest.update(f"\0{path.stat().st_size}\0".encode())
                with path.open("rb") as file:
                    while chunk := file.read(_CHUNK):
                        digest.update(chunk)
    return digest.hexdigest()


def _name(path: Path) -> bytes:
    """A file's name, the same whichever form of Unicode a computer gives it."""
    return unicodedata.normalize("NFC", path.name).encode("utf-8", "surrogateescape")
