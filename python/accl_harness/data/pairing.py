"""Which files belong together, and what is said where they do not."""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import HarnessWarning, UserError
from .formats import SUFFIXES, ImageFile, Role, read_image, stem_of, suffix_of
from .geometry import Layout, match
from .options import Slices

_SIDE_FILES = (".txt", ".md", ".csv", ".json", ".yaml", ".yml", ".db", ".ini")
_SIDE_FOLDERS = ("__MACOSX", "@eaDir", "__pycache__")


def name_of(path: str | os.PathLike[str]) -> str:
    """The stem that an image shares with its mask, in one of Unicode's several forms (NFC).

    Two computers may write the same name, as people see it, in different bytes.
    """
    return unicodedata.normalize("NFC", stem_of(path))


def list_files(folder: str | os.PathLike[str], what: str = "images") -> dict[str, Path]:
    """Readable files of ``folder`` as name -> path, sorted by name (see :func:`name_of`).

    Hidden files, side files (text, JSON, ...) and folders without files are passed over.

    Raises:
        UserError: any other file or folder, two files of one name, a link to nowhere, a missing or
            an empty folder.
    """
    folder = Path(folder)
    readable = ", ".join(SUFFIXES)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; it should hold the {what} ({readable})")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() in _SIDE_FILES:
            continue
        if path.is_dir():
            _refuse_folder(path, what)
            continue
        if not suffix_of(path):
            raise UserError(f"{path}: not a readable format ({readable}); convert or move it")
        name = name_of(path)
        if name in found:
            forms = _forms(stem_of(found[name]), stem_of(path))
            raise UserError(
                f"{path} and {found[name].name} have the same name{forms}; keep one of them"
            )
        found[name] = path
    if not found:
        raise UserError(f"{folder}: holds no {what}; wanted files in one of {readable}")
    return dict(sorted(found.items()))


def _refuse_folder(folder: Path, what: str) -> None:
    """Refuse ``folder`` if files would be passed over with it."""
    if folder.name in _SIDE_FOLDERS:
        return
    files = [
        name
        for _, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".") and Path(name).suffix.lower() not in _SIDE_FILES
    ]
    if files:
        raise UserError(
            f"{folder}: is a folder among the {what}, and its {len(files)} files would not be "
            f"read; move them up into {folder.parent} (with the folder's name in theirs), or take "
            "it away"
        )


def _forms(first: str, second: str) -> str:
    """Names that look alike, in a form that shows where they differ."""
    if first == second:
        return ""
    return f" in two forms of Unicode ({second!a} and {first!a})"


def has_split(root: str | Path, split: str) -> bool:
    """Whether ``root`` is a data set with that split."""
    return (Path(root) / split).is_dir()


def split_folder(root: Path, split: str, masks: str) -> Path:
    """The folder ``root/split``.

    Raises:
        UserError: it is missing; shows the layout.
    """
    layout = f"wanted {root}/{split}/images and {root}/{split}/{masks} with equal file names"
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; {layout}")
    if not (root / split).is_dir():
        raise UserError(f"{root}: has no folder {split}; {layout}")
    return root / split


def list_images(folder: Path, masks: str, suffix: str) -> dict[str, Path]:
    """The images of a split; masks in the same folder are known by their suffix."""
    paths = list_files(folder / "images")
    if not suffix or (folder / masks).resolve() != (folder / "images").resolve():
        return paths
    return {name: path for name, path in paths.items() if not name.endswith(suffix)}


def partners(
    images: dict[str, Path], folder: Path, what: str, suffix: str = ""
) -> dict[str, Path] | None:
    """The files of ``folder`` by the name of their image; None if there is no such folder.

    Args:
        images: name -> path.
        folder: of the partners.
        what: they are called in a message.
        suffix: what their names have behind the image's (``_mask``).

    Raises:
        UserError: an image without a partner, or a partner without an image.
    """
    if not folder.is_dir():
        return None
    paths: dict[str, Path] = {}
    for name, path in list_files(folder, f"{what}s").items():
        if path in images.values():
            continue  # a folder of both
        own = name.removesuffix(suffix) if name not in images else name
        if own in paths:
            raise UserError(f"{path} and {paths[own].name} belong to one image; keep one of them")
        paths[own] = path
    without = [name for name in images if name not in paths]
    alone = [name for name in paths if name not in images]
    if without:
        path = images[without[0]]
        wanted = f"{stem_of(path)}{suffix}" if suffix else "the same name"
        raise UserError(
            f"{path}: has no {what} of {wanted} in {folder}"
            + (f" (nor have {len(without) - 1} more)" if len(without) > 1 else "")
            + (_nearly(without[0], [paths[name] for name in alone], what))
            + f"; add the {what} or take the image out"
        )
    if alone:
        raise UserError(
            f"{paths[alone[0]]}: has no image of the same name in "
            f"{next(iter(images.values())).parent}"
            + (f" (nor have {len(alone) - 1} more)" if len(alone) > 1 else "")
            + f"; add the image or take the {what} out"
        )
    return paths


def _nearly(name: str, candidates: list[Path], what: str) -> str:
    """The likeliest reason why a name has no partner."""

    def plain(text: str) -> str:
        return "".join(unicodedata.normalize("NFKC", text).casefold().split())

    for path in candidates:
        if plain(name_of(path)) == plain(name):
            return f"; {path.name} ({stem_of(path)!a}) is not quite {name!a}"
    for path in candidates:
        rest = name_of(path).removeprefix(name)
        if rest != name_of(path) and rest and not rest[0].isalnum():
            return f"; {path.name} would do with --mask-suffix {rest}" if what == "mask" else ""
    return ""


def read_partner(path: Path, role: Role, image: ImageFile, slices: Slices) -> ImageFile:
    """Read a mask or weak label on its image's grid.

    Raises:
        UserError: it has another shape, or lies elsewhere in the world.
    """
    file = read_image(path, role, slices)
    turned = match(file.array, file.geometry, path, image.array.shape, image.geometry, image.path)
    if turned.shape != image.array.shape:
        wanted, got = (" x ".join(map(str, a.shape)) for a in (image.array, turned))
        hint = _shape_hint(turned.shape, image)
        raise UserError(
            f"{path}: is {got}, its image {image.path} is {wanted}{hint}; make them equal"
        )
    return file if turned is file.array else replace(file, array=turned, readings={})


def _shape_hint(shape: tuple[int, ...], image: ImageFile) -> str:
    if image.turned and shape[:2] == image.array.shape[1::-1]:
        return (
            " (upright, as its EXIF orientation says: the mask was drawn on the pixels as they are "
            "stored; turn the mask, or remove the tag)"
        )
    return ""


class Guesses:
    """Volumes whose slices' axis was guessed, to be told once a folder."""

    def __init__(self) -> None:
        self._folders: dict[Path, list[tuple[Path, Layout]]] = {}

    def note(self, file: ImageFile) -> ImageFile:
        """Keep what was guessed about ``file``, which is returned.

        Raises:
            UserError: another file of the folder was read otherwise.
        """
        layout = file.layout
        if not file.is_volume or layout is None:
            return file
        known = self._folders.setdefault(file.path.parent, [])
        for path, other in known[:1] if file.geometry is None else []:
            if other.slices != layout.slices and not (other.sure and layout.sure):
                raise UserError(
                    f"{path} seems to have its slices on the {other.slices} axis, "
                    f"{file.path.name} on the {layout.slices}; give --slices first or last"
                )
        known.append((file.path, layout))
        return file

    def tell(self) -> None:
        """Warn of the guesses."""
        for files in self._folders.values():
            unsure = [(path, layout) for path, layout in files if not layout.sure]
            for path, layout in unsure[:1]:
                size = " x ".join(map(str, layout.shape))
                others = f" (and {len(unsure) - 1} more)" if unsure[1:] else ""
                warnings.warn(
                    f"{path}{others}: {size}: the {layout.slices} axis is taken for that of the "
                    "slices; --slices first or --slices last decides it",
                    HarnessWarning,
                    stacklevel=3,
                )


def patient(stem: str, pattern: str | None, option: str = "patients") -> str:
    """The first group of ``pattern`` in the stem, or the whole match; None: the stem itself.

    Args:
        stem: of a file.
        pattern: a regular expression.
        option: what the pattern is called in a message.

    Raises:
        UserError: no regular expression, or one that finds no text in the stem.
    """
    if pattern is None:
        return stem
    try:
        match = re.search(unicodedata.normalize("NFC", pattern), stem)
    except re.error as error:
        raise UserError(f"{option}: '{pattern}' is not a regular expression ({error})") from error
    found = match and match.group(1 if match.groups() else 0)
    if not found:
        part = "with its first group " if match and match.groups() else ""
        raise UserError(
            f"{option}: '{pattern}' finds nothing {part}in the file name '{stem}'; wanted an "
            f"expression that finds the {option.removesuffix('s')} in the name of every file"
        )
    return found


def one_patient_each(volumes: Sequence[str], patients: Sequence[str], pattern: str | None) -> None:
    """Refuse a ``pattern`` of volumes that takes slices of two patients together.

    Args:
        volumes: of each image.
        patients: likewise.
        pattern: the regular expression that named the volumes; None: the patients did.

    Raises:
        UserError: naming the volume and two of its patients.
    """
    owner: dict[str, str] = {}
    for volume, name in zip(volumes, patients, strict=True):
        if owner.setdefault(volume, name) != name:
            raise UserError(
                f"volumes: '{pattern}' makes one volume '{volume}' of slices of the patients "
                f"'{owner[volume]}' and '{name}'; wanted an expression that tells patients apart "
                "too, such as '(patient\\d+_frame\\d+)'"
            )


def finds_in_all(pattern: str, stems: Iterable[str]) -> bool:
    """Whether a regular expression finds something in each of the stems."""
    found = re.compile(unicodedata.normalize("NFC", pattern))
    return all(found.search(stem) for stem in stems)


def unique_names(names: list[str], paths: list[Path]) -> None:
    """Refuse a slice that has been given the name of another image.

    Raises:
        UserError: naming both files.
    """
    if len(set(names)) == len(names):
        return
    seen: dict[str, Path] = {}
    for name, path in zip(names, paths, strict=True):
        if name in seen:
            raise UserError(
                f"{path} and {seen[name]} both give an image the name {name} (slices are named "
                "after their file: FILE_z000 and so on); rename one of them"
            )
        seen[name] = path
