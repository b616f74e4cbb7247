"""Which label files are there, what wrote them, and where their images lie."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from ..data.formats import SUFFIXES, stem_of, suffix_of
from ..errors import UserError
from .coco import is_coco, read_coco
from .cvat import read_cvat
from .dicom_series import has_dicom
from .geojson import is_geojson, read_geojson
from .items import Item, Labels
from .labelme import is_labelme, read_labelme
from .slicer import SUFFIX as SEGMENTS

_TEXT = (".json", ".geojson", ".xml")

_JSON: tuple[tuple[Callable[[Any], bool], Callable[[Path, Any], Labels]], ...] = (
    (is_labelme, read_labelme),
    (is_coco, read_coco),
    (is_geojson, read_geojson),
)


def read_labels(source: Path, suffix: str = "") -> Labels:
    """All label files of a folder, or one.

    A folder with JSON or XML files is read by these; without any, its images are labels.

    Args:
        source: the file or folder.
        suffix: what the names of images of labels have behind those of their images.

    Raises:
        UserError: nothing that can be read, or files of several tools.
    """
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    if source.is_file():
        return _read(source, suffix)
    files = sorted(path for path in source.iterdir() if path.is_file() and path.name[0] != ".")
    texts = [path for path in files if path.suffix.lower() in _TEXT]
    images = [path for path in files if suffix_of(path) and _stem(path).endswith(suffix)]
    chosen = texts or images
    if not chosen:
        raise UserError(
            f"{source}: holds no label files; wanted JSON (LabelMe, COCO), GeoJSON (QuPath), XML "
            f"(CVAT for images) or images of labels ({', '.join(SUFFIXES)})"
        )
    read = [_read(path, suffix) for path in chosen]
    tools = sorted({labels.tool for labels in read})
    if len(tools) > 1:
        raise UserError(f"{source}: holds files of {' and '.join(tools)}; import them one by one")
    return Labels(
        tools[0],
        [item for labels in read for item in labels.items],
        list(dict.fromkeys(name for labels in read for name in labels.declared)),
    )


def _read(path: Path, suffix: str) -> Labels:
    if path.suffix.lower() == ".xml":
        return read_cvat(path)
    if path.suffix.lower() not in _TEXT:
        if not suffix_of(path):
            hint = "; unpack it" if path.suffix.lower() in (".zip", ".gz", ".tar") else ""
            raise UserError(f"{path}: no format of labels that can be read{hint}")
        tool = "3D Slicer" if path.name.lower().endswith(SEGMENTS) else "images of labels"
        stem = _stem(path)
        return Labels(tool, [Item(path, stem.removesuffix(suffix), raster=True)])
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is no JSON ({error})") from error
    for known, read in _JSON:
        if known(content):
            return _checked(path, read, content)
    raise UserError(f"{path}: is JSON, but not of LabelMe, COCO or QuPath")


def _checked(path: Path, read: Callable[[Path, Any], Labels], content: Any) -> Labels:
    """What a reader makes of a file; parts that are missing or of another kind are told."""
    try:
        return read(path, content)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        reason = (
            f"has no {error}" if isinstance(error, KeyError) else f"is not as written ({error})"
        )
        raise UserError(f"{path}: an entry {reason}; the file is damaged or edited") from error


def _stem(path: Path) -> str:
    if path.name.lower().endswith(SEGMENTS):
        return path.name[: -len(SEGMENTS)]
    return stem_of(path)


def is_dicom(source: Path) -> bool:
    """Whether a file is DICOM, or a folder holds some and nothing else that can be read."""
    if source.is_file():
        return not suffix_of(source) and source.suffix.lower() not in _TEXT and has_dicom(source)
    if not source.is_dir():
        return False
    known = (suffix_of(path) or path.suffix.lower() in _TEXT for path in source.iterdir())
    return not any(known) and has_dicom(source)


class ImageFinder:
    """Finds the image that a label file names.

    Args:
        source: the label file, or the folder of them.
        images: the folder of images, if a person names one.
        suffix: see :func:`read_labels`.

    Raises:
        UserError: no such folder.
    """

    def __init__(self, source: Path, images: str | None, suffix: str):
        base = source if source.is_dir() else source.parent
        if images is not None:
            if not Path(images).is_dir():
                raise UserError(f"{images}: no such folder of images")
            self.folders = [Path(images)]
        else:
            self.folders = [base, base / "images", base.parent / "images", base.parent]
        self.suffix, self.images = suffix, images
        self._by_stem: dict[str, list[Path]] | None = None

    def find(self, item: Item) -> Path | None:
        """The image's file; None if there is none.

        Raises:
            UserError: two files have its name.
        """
        name = (item.image or "").replace("\\", "/")
        for folder in self.folders:
            for part in dict.fromkeys((name, PurePosixPath(name).name)):
                if (folder / part).is_file() and (folder / part) != item.source:
                    return folder / part
        found = [path for path in self._stems().get(name, []) if path != item.source]
        if len(found) > 1 and {path.parent for path in found} == {found[0].parent}:
            raise UserError(f"{item.source}: {found[0]} and {found[1].name} could be its image")
        return found[0] if found else None

    def _stems(self) -> dict[str, list[Path]]:
        if self._by_stem is None:
            self._by_stem = {}
            for folder in self.folders:
                for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                    labels = path.name.lower().endswith(SEGMENTS) or (
                        self.suffix and stem_of(path).endswith(self.suffix)
                    )
                    if suffix_of(path) and path.is_file() and not labels:
                        self._by_stem.setdefault(stem_of(path), []).append(path)
        return self._by_stem

    def looked_in(self) -> str:
        """The folders, for a message."""
        return ", ".join(str(folder) for folder in self.folders if folder.is_dir())
