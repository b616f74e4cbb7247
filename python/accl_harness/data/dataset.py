"""A data set in memory: images, masks and weak labels of one split at the working size.

Folder layout: ``ROOT/{train,test}/{images,masks}`` with equal stems, optional ``weak/``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from .class_names import names_for
from .formats import ImageFile, read_image
from .labels import MaskReader, tell_unmasked
from .options import UNLABELLED, Slices, WeakOptions
from .pairing import (
    Guesses,
    list_files,
    list_images,
    name_of,
    one_patient_each,
    partners,
    patient,
    read_partner,
    split_folder,
    unique_names,
)
from .pixels import resize_image, resize_mask, resize_weak, to_unit_range
from .small_objects import tell_small_objects
from .weak import count_labelled, weaken
from .weak_files import WeakReader, check_marked, labels_to_read


@dataclass(frozen=True)
class Source:
    """Where an image comes from: a file, and in a volume the slice."""

    path: Path
    slice_index: int | None = None
    slices: Slices = "auto"
    """How the file is read."""


@dataclass(kw_only=True)
class Dataset:
    """Images of one split; lists and tensors share their first index.

    Built by :func:`load_split` and :func:`load_images`, or by hand from tensors: then the working
    size is the full size.
    """

    images: Tensor
    """float32 [n, 1, size, size] in [-1, 1]."""
    names: list[str]
    """File stem; of a slice ``stem_z012``. No two are equal."""
    groups: list[str] = field(default_factory=list)
    """The patient each image belongs to; by default its file."""
    volumes: list[str] = field(default_factory=list)
    """The volume each image is a slice of; by default its patient."""
    masks: Tensor | None = None
    """uint8 [n, size, size]: class indices, 0 background."""
    weak_labels: Tensor | None = None
    """uint8 [n, size, size]: class indices, 0 background, 255 unlabelled."""
    classes: int | None = None
    """Number of classes that the indices are of; None: {0, 1}, one object and one logit."""
    class_names: tuple[str, ...] | None = None
    """By index, where the data set names them."""
    spacings: list[tuple[float, float] | None] = field(default_factory=list)
    """Row and column spacing in mm at the image's own size, None where unknown."""
    sources: list[Source | None] = field(default_factory=list)
    full_masks: list[np.ndarray] | None = None
    """Class indices, uint8, at each image's own size; see :meth:`full_mask`."""
    full_shapes: list[tuple[int, int]] = field(default_factory=list)
    folder: Path | None = None
    """``ROOT/split``, or the folder of images."""

    def __post_init__(self) -> None:
        n, size = len(self.images), tuple(self.images.shape[-2:])
        self.groups = self.groups or list(self.names)
        self.volumes = self.volumes or list(self.groups)
        self.spacings = self.spacings or [None] * n
        self.sources = self.sources or [None] * n
        self.full_shapes = self.full_shapes or [size] * n
        self._last_read: tuple[Path, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def size(self) -> int:
        """The working size: a side of every image."""
        return int(self.images.shape[-1])

    def full_shape(self, index: int) -> tuple[int, int]:
        """Height and width of the image's own size."""
        return self.full_shapes[index]

    def full_mask(self, index: int) -> np.ndarray:
        """Class indices, uint8 [H, W], at the image's own size.

        Raises:
            UserError: the image has no mask.
        """
        if self.full_masks is not None:
            return self.full_masks[index]
        if self.masks is None:
            raise UserError(f"{self.names[index]}: has no mask")
        return self.masks[index].numpy()

    def full_image(self, index: int) -> np.ndarray:
        """float32 [H, W] in [-1, 1] at the image's own size; read again from its file."""
        source = self.sources[index]
        if source is None:
            return self.images[index, 0].numpy()
        if self._last_read is None or self._last_read[0] != source.path:
            self._last_read = (source.path, _grey(source.path, source.slices))
        image = self._last_read[1]
        return image if source.slice_index is None else image[..., source.slice_index]

    @property
    def has_labels(self) -> bool:
        """Whether some pixel has a weak label."""
        return self.weak_labels is not None and bool((self.weak_labels != UNLABELLED).any())

    def annotation(self) -> dict[str, Any]:
        """Labelled ``pixels``, their ``ratio`` (a fraction of all) and the count ``per_image``.

        At the working size, which is what the loss sees.
        """
        labels = [] if self.weak_labels is None else list(self.weak_labels.numpy())
        return count_labelled(labels, self.names if labels else [])

    def subset(self, indices: Sequence[int]) -> Dataset:
        """The images at ``indices``, in that order."""
        chosen = [int(i) for i in indices]
        index = torch.tensor(chosen, dtype=torch.long)

        def pick(values: list) -> list:
            return [values[i] for i in chosen]

        return replace(
            self,
            images=self.images[index],
            masks=None if self.masks is None else self.masks[index],
            weak_labels=None if self.weak_labels is None else self.weak_labels[index],
            full_masks=None if self.full_masks is None else pick(self.full_masks),
            names=pick(self.names),
            groups=pick(self.groups),
            volumes=pick(self.volumes),
            spacings=pick(self.spacings),
            sources=pick(self.sources),
            full_shapes=pick(self.full_shapes),
        )


def load_split(
    root: str | Path,
    split: str,
    *,
    masks: str = "masks",
    size: int = 256,
    weak: WeakOptions | None = WeakOptions(),  # noqa: B008 (frozen)
    mask_threshold: float | None = None,
    mask_value: int | None = None,
    classes: int | None = None,
    mask_suffix: str = "",
    slices: Slices = "auto",
    patients: str | None = None,
    volumes: str | None = None,
    limit: int | None = None,
) -> Dataset:
    """Read ``ROOT/split``: images, masks and weak labels.

    Labels made from masks are made at the image's own size, where the recipe's 10 iterations
    mean what they were published for, then brought to the working size without losing an image's
    last label (:func:`~.pixels.resize_weak`); a ``ratio`` is met at the working size, where the
    loss counts.

    Args:
        root: the folder of the data set.
        split: ``train`` or ``test``.
        masks: name of the mask folder. Masks may be missing as a whole where ``weak/`` has the
            labels: then ``masks`` of the data set is None.
        size: the working size.
        weak: how weak labels are made or read; None: without labels.
        mask_threshold: the object is where a mask exceeds it.
        mask_value: the object is where a mask equals it.
        classes: masks and weak labels hold class indices 0 to ``classes - 1``.
        mask_suffix: what the names of masks have behind those of the images.
        slices: the axis of a volume's slices.
        patients: a regular expression whose first group (or whole match) in the file's stem names
            the patient; None: the volume, where ``volumes`` names it, else the file.
        volumes: likewise the volume that a flat file is a slice of; None: the patient.
        limit: only the first so many files.

    Raises:
        UserError: a missing, unreadable, empty or mismatching file or folder, or labels that leave
            a class out; the message names it and says what to do.
    """
    reader = MaskReader(mask_threshold, mask_value, classes)
    if weak is not None and classes is not None:
        weak.check_classes(classes)
    folder = split_folder(Path(root), split, masks)
    image_paths = list_images(folder, masks, mask_suffix)
    mask_paths = partners(image_paths, folder / masks, "mask", mask_suffix)
    weak_paths = labels_to_read(weak, folder / "weak", image_paths, mask_suffix)
    if mask_paths is None and weak_paths is None:
        _refuse_unlabelled(folder, masks)

    parts = _Parts(size=size, slices=slices, classes=classes)
    guesses = Guesses()
    weak_reader, full_weak = WeakReader(weak, classes), []
    for stem in list(image_paths)[:limit]:
        image = guesses.note(read_image(image_paths[stem], slices=slices))
        volume = patient(stem, volumes or patients, "volumes" if volumes else "patients")
        groups = volume if patients is None else patient(stem, patients), volume
        mask = None
        if mask_paths is not None:
            file = guesses.note(read_partner(mask_paths[stem], "mask", image, slices))
            mask = reader.read(file)
        if weak_paths is not None:
            weak_file = guesses.note(read_partner(weak_paths[stem], "weak", image, slices))
            full_weak += list(_planes(weak_reader.read(weak_file)))
        parts.add(stem, groups, image, mask)
    guesses.tell()
    reader.check(folder / masks)
    dataset = parts.dataset(folder)
    dataset.class_names = names_for(root, classes)
    one_patient_each(dataset.volumes, dataset.groups, volumes)
    if weak is None:
        return dataset
    tell_small_objects(dataset.full_masks or [], size, folder / masks)
    if weak_paths is not None:
        weak_reader.check()
        check_marked(full_weak, folder / "weak", weak, classes)
        if dataset.masks is not None:
            tell_unmasked(dataset.full_masks, folder / masks, classes)
    else:
        sources = dataset.full_masks if weak.ratio is None else list(dataset.masks.numpy())
        full_weak = weaken(sources, weak, classes=classes)
        check_marked(full_weak, folder / masks, weak, classes, made=True)
    dataset.weak_labels = torch.from_numpy(np.stack([resize_weak(w, size) for w in full_weak]))
    return dataset


def _refuse_unlabelled(folder: Path, masks: str) -> None:
    """Say that there are neither masks nor weak labels, and which folders may be meant."""
    known = {"images", "weak", "references"}
    found = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name not in known)
    held = ", ".join(found) or "no folder of masks"
    raise UserError(
        f"{folder / masks}: no such folder; {folder} holds {held}"
        + ("; name the folder of masks with --masks" if found else "")
    )


def load_images(
    folder: str | Path,
    *,
    size: int = 256,
    slices: Slices = "auto",
    patients: str | None = None,
    limit: int | None = None,
) -> Dataset:
    """Read a folder of images (or one image file) without masks, for prediction."""
    folder = Path(folder)
    paths = {name_of(folder): folder} if folder.is_file() else list_files(folder)
    parts, guesses = _Parts(size=size, slices=slices), Guesses()
    for stem in list(paths)[:limit]:
        image = guesses.note(read_image(paths[stem], slices=slices))
        group = patient(stem, patients)
        parts.add(stem, (group, group), image, None)
    guesses.tell()
    return parts.dataset(folder)


def split_validation(
    dataset: Dataset, fraction: float, seed: int
) -> tuple[Dataset, Dataset | None]:
    """Set whole patients aside: (training, validation); validation is None for fraction 0.

    ``fraction`` of the patients, rounded, at least one; the choice depends on the seed and the
    patients' names alone. Images keep their order.

    Raises:
        UserError: a fraction outside of [0, 1), or too few patients to leave some on both sides.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"validation fraction: wanted 0 <= fraction < 1, got {fraction}")
    if fraction == 0:
        return dataset, None
    patients = sorted(set(dataset.groups))
    count = max(1, round(fraction * len(patients)))
    if count >= len(patients):
        raise UserError(
            f"validation fraction {fraction} leaves none of {len(patients)} patients to train on"
        )
    order = np.random.default_rng(seed).permutation(len(patients))
    held_out = {patients[i] for i in order[:count]}
    inside = [i for i, group in enumerate(dataset.groups) if group in held_out]
    outside = [i for i, group in enumerate(dataset.groups) if group not in held_out]
    return dataset.subset(outside), dataset.subset(inside)


@dataclass
class _Parts:
    """Collects files slice by slice."""

    size: int
    slices: Slices
    classes: int | None = None
    images: list[Tensor] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    masks: list[np.ndarray] = field(default_factory=list)
    spacings: list = field(default_factory=list)
    sources: list = field(default_factory=list)
    shapes: list = field(default_factory=list)

    def add(
        self, stem: str, groups: tuple[str, str], image: ImageFile, mask: np.ndarray | None
    ) -> None:
        """Take a file; ``groups``: its patient and, if it is a slice, the volume it is of."""
        group, volume = groups
        planes = resize_image(to_unit_range(image.array), self.size)
        count = len(planes)
        self.images.append(planes)
        planes_of: Sequence[int | None] = range(count) if image.is_volume else [None]
        self.names += [stem if z is None else f"{stem}_z{z:03d}" for z in planes_of]
        self.sources += [Source(image.path, z, self.slices) for z in planes_of]
        self.groups += [group] * count
        self.volumes += [image.path.name if image.is_volume else volume] * count
        self.spacings += [image.spacing] * count
        self.shapes += [tuple(image.array.shape[:2])] * count
        if mask is not None:
            self.masks += list(_planes(mask))

    def dataset(self, folder: Path) -> Dataset:
        unique_names(self.names, [source.path for source in self.sources])
        resized = [resize_mask(mask, self.size) for mask in self.masks]
        return Dataset(
            images=torch.cat(self.images),
            names=self.names,
            groups=self.groups,
            volumes=self.volumes,
            classes=self.classes,
            masks=torch.from_numpy(np.stack(resized)) if resized else None,
            spacings=self.spacings,
            sources=self.sources,
            full_masks=self.masks or None,
            full_shapes=self.shapes,
            folder=folder,
        )


def _grey(path: Path, slices: Slices) -> np.ndarray:
    return to_unit_range(read_image(path, slices=slices).array)


def _planes(array: np.ndarray) -> Iterator[np.ndarray]:
    planes = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    return (np.ascontiguousarray(plane) for plane in planes)
