"""Masks for images: the network's probabilities brought back to each image's own size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from torch.nn import functional as F

from ..classes import decide
from ..data.class_names import read_class_names, write_class_names
from ..data.dataset import load_images
from ..data.formats import output_path, read_image, refuse_full, write_labels, write_mask
from ..data.labels import class_mask
from ..data.options import Slices
from ..training.inference import load_run, predict_probabilities

CHUNK = 16


def predict_masks(run, dataset) -> Iterator[np.ndarray]:
    """Yields the predicted mask of each image of ``dataset``, uint8 class indices at its own size.

    Probabilities are resized bilinearly to the full size, then cut at 0.5; with classes the
    highest one decides.

    Args:
        run: a ``training.TrainedRun``.
        dataset: a ``data.Dataset``; masks are not needed.
    """
    for start in range(0, len(dataset.names), CHUNK):
        probabilities = predict_probabilities(run, dataset.images[start : start + CHUNK]).float()
        for offset, probability in enumerate(probabilities.cpu()):
            size = tuple(dataset.full_shape(start + offset))
            full = F.interpolate(probability[None], size=size, mode="bilinear")
            yield decide(full)[0].numpy()


def write_predictions(dataset, masks: list[np.ndarray], out: Path) -> list[Path]:
    """Write ``masks`` under ``out``, one file an input file, in the input's format and geometry.

    Where the data set has classes the files hold the class indices as they are, else the object is
    255 in pictures and 1 elsewhere. A JPEG's or GIF's mask becomes a PNG (JPEG would blur it, GIF
    renumber it). The slices of a volume go back into one volume of the input's shape; where only
    some of its slices were in the data set the rest is background.

    Returns:
        The files written.
    """
    out.mkdir(parents=True, exist_ok=True)
    if dataset.class_names:
        write_class_names(out, dataset.class_names)
    write = write_mask if dataset.classes is None else write_labels
    written = []
    slices = defaultdict(list)
    for name, source, mask in zip(dataset.names, dataset.sources, masks, strict=True):
        if source is None:
            written.append(write(out / f"{name}.png", mask))
        else:
            slices[source.path].append((source, mask))
    for path, parts in slices.items():
        file = read_image(path, slices=parts[0][0].slices)
        if file.is_volume:
            array = np.zeros(file.array.shape, dtype=np.uint8)
            for source, mask in parts:
                array[..., source.slice_index] = mask
        else:
            array = parts[0][1]
        written.append(write(output_path(out, path), array, like=file))
    return written


def read_prediction(dataset, index: int, folder: Path) -> np.ndarray:
    """The mask that :func:`write_predictions` left in ``folder``: uint8 class indices."""
    source = dataset.sources[index]
    if source is None:
        file = read_image(folder / f"{dataset.names[index]}.png", "mask")
    else:
        file = read_image(output_path(folder, source.path), "mask", source.slices)
    if dataset.classes is None:
        mask = (file.array > 0).view(np.uint8)
    else:
        mask = class_mask(file, dataset.classes)
    return mask if source is None or source.slice_index is None else mask[..., source.slice_index]


def predict(
    run: Path,
    images: Path,
    out: Path,
    slices: Slices | None = None,
    draw: Callable[..., None] | None = None,
) -> list[Path]:
    """``accl predict``: writes a mask for every image in the folder ``images`` into ``out``.

    Args:
        run: run folder of a finished or interrupted training.
        images: folder of images in any readable format, of any and of mixed size.
        out: folder for the masks (new or empty), same file names as the images
            (a JPEG's or GIF's mask is a PNG).
        slices: axis of a volume's slices; None keeps the training's.
        draw: called with the data set and the masks at the end, to make pictures of them.

    Raises:
        UserError: no run, no readable image, or ``out`` holds something already.
    """
    run, images, out = Path(run), Path(images), Path(out).resolve()
    refuse_full(out)
    trained = load_run(run)
    config = trained.config
    dataset = load_images(images, size=config.size, slices=slices or config.slices)
    dataset.classes = config.classes
    dataset.class_names = read_class_names(run)
    masks = list(predict_masks(trained, dataset))
    written = write_predictions(dataset, masks, out)
    if draw is not None:
        draw(dataset, masks)
    return written
