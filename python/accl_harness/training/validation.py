"""The scores of an epoch's row: on the validation images, at the working size."""

from __future__ import annotations

import torch
from torch import Tensor

from ..classes import by_class, decide, each_object
from ..data.dataset import Dataset
from .curves import Row
from .inference import TrainedRun, predict_probabilities

CHUNK = 16


def validate(trained: TrainedRun, images: Dataset) -> tuple[list[int], list[int], list[float]]:
    """Predicted pixels, true pixels and mean DSC of each object class.

    The DSC is of an image; with several classes it is of a volume where slices make one up, since
    slices without a class would count as found where nothing is found. Both empty gives 1.
    """
    parts = images.images.split(CHUNK)
    chosen = torch.cat([decide(predict_probabilities(trained, part)).cpu() for part in parts])
    kinds = trained.config.foregrounds
    predicted, truth, scores = [], [], []
    pairs = zip(each_object(chosen, kinds), each_object(images.masks, kinds), strict=True)
    for found, true in pairs:
        counts = [(found & true).sum((1, 2)), found.sum((1, 2)), true.sum((1, 2))]
        if trained.config.classes is not None:
            counts = [_by_volume(count, images.volumes) for count in counts]
        overlap, total = counts[0], counts[1] + counts[2]
        scores.append(torch.where(total > 0, 2 * overlap / total, 1.0).mean().item())
        predicted.append(int(found.sum()))
        truth.append(int(true.sum()))
    return predicted, truth, scores


def score_columns(predicted: list, truth: list, dsc: list, classes: int | None) -> Row:
    """Size ratio and DSC for an epoch's row: over all object classes, and of each of several."""
    ratios = [_ratio(p, t) for p, t in zip(predicted, truth, strict=True)]
    row = {
        "size_ratio": _ratio(sum(predicted), sum(truth)),
        "dsc": None if None in dsc else sum(dsc) / len(dsc),
    }
    if classes is not None:
        for name, values in (("size_ratio", ratios), ("dsc", dsc)):
            row |= {f"{name}_{key}": value for key, value in by_class(values, classes).items()}
    return row


def _ratio(predicted: float, truth: float) -> float | None:
    return predicted / truth if truth else None


def _by_volume(counts: Tensor, volumes: list[str]) -> Tensor:
    places = {name: place for place, name in enumerate(dict.fromkeys(volumes))}
    index = torch.tensor([places[name] for name in volumes])
    return torch.zeros(len(places), dtype=counts.dtype).index_add_(0, index, counts)
