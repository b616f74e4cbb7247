"""Small data and trainings that the tests of the training share."""

from __future__ import annotations

from pathlib import Path

import torch
from accl_harness.config import TrainConfig, make_config
from accl_harness.data.dataset import Dataset
from accl_harness.data.options import ImageMoves
from accl_harness.run import Run
from accl_harness.terms import Term
from accl_harness.terms.term import Material
from accl_harness.training.loop import Trainer
from accl_harness.training.ops import load_ops
from accl_harness.training.runtime import launch

SIZE = 32


def small_dataset(n: int = 4, size: int = SIZE, seed: int = 0) -> Dataset:
    """Bright squares of 8 to 16 pixels a side on noise; the inner 4 x 4 pixels are labelled."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.2 * torch.randn(n, 1, size, size, generator=generator)
    masks = torch.zeros(n, size, size, dtype=torch.uint8)
    weak = torch.full_like(masks, 255)
    for i in range(n):
        half = 4 + i % 5
        row, column = (int(x) for x in torch.randint(half, size - half, (2,), generator=generator))
        masks[i, row - half : row + half, column - half : column + half] = 1
        weak[i, row - 2 : row + 2, column - 2 : column + 2] = 1
    images += masks.unsqueeze(1)
    names = [f"square_{i}" for i in range(n)]
    return Dataset(images=images.clamp(-1, 1), names=names, masks=masks, weak_labels=weak)


def small_config(**options) -> TrainConfig:
    """A training of a few seconds at most, on the reference ops and the CPU."""
    defaults = {
        "method": "unpaired_accl",
        "size": SIZE,
        "width": 2,
        "epochs": 3,
        "backend": "reference",
        "accelerator": "cpu",
        "tensorboard": False,
        "prior": 0.02,
        "image_moves": ImageMoves(),
    }
    return make_config("small", **{**defaults, **options})


def small_trainer(data: Dataset | None = None, **options) -> Trainer:
    """A trainer of small data, which no run folder belongs to."""
    config = small_config(**options)
    return Trainer(config, data or small_dataset(), None, load_ops("reference"), launch(config))


def measure(term: type[Term], masks=None, images=None, **options) -> Term:
    """A term of a small training with what it measures on these masks and images."""
    material = Material(images, masks, load_ops("reference"))
    return term.measure(small_config(**options), material)


def sums_by_name(step) -> dict[str, float]:
    """The sums of a step of one object class."""
    names = (*step.columns, "predicted", "truth", "dsc")
    return dict(zip(names, step.sums.tolist(), strict=True))


def phantom_folder(root: Path) -> Path:
    """Five training and two test phantoms in the folder layout."""
    from accl_harness.data.phantom import write_phantom

    return write_phantom(root / "phantoms", n_train=5, n_test=2, size=SIZE)


def column(run: Path, name: str) -> list[str]:
    """A column of the run's metrics.csv, as written."""
    return [row[name] for row in Run(run).rows()]


def rows_without_seconds(run: Path) -> list[dict[str, str]]:
    """metrics.csv without the one column that differs from run to run."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in Run(run).rows()]


def small_classes(n: int = 4, size: int = SIZE) -> Dataset:
    """Four classes: a ring (1) around a disc (2) and a square beside it (3), which the last image
    lacks; two pixels of each class, and of the background, are labelled."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    masks = torch.zeros(n, size, size, dtype=torch.uint8)
    for i in range(n):
        row, column = 12 + i, 11 + 2 * i % 3
        distance = (rows - row).square() + (columns - column).square()
        masks[i][distance <= (6 + i % 2) ** 2] = 1
        masks[i][distance <= 16] = 2
        if i < n - 1:
            masks[i, row - 3 : row + 3, size - 9 : size - 3] = 3
    weak = torch.full_like(masks, 255)
    for i in range(n):
        for index in masks[i].unique().tolist():
            places = (masks[i] == index).nonzero()
            for row, column in places[:: len(places) // 2][:2].tolist():
                weak[i, row, column] = index
    noise = 0.2 * torch.randn(n, 1, size, size, generator=generator)
    images = (noise + torch.tensor([-0.7, -0.1, 0.8, 0.3])[masks.long()].unsqueeze(1)).clamp(-1, 1)
    return Dataset(
        images=images,
        names=[f"image_{i}" for i in range(n)],
        masks=masks,
        weak_labels=weak,
        classes=4,
    )


def classes_folder(root: Path) -> Path:
    """The images of :func:`small_classes` as a data set of two splits, with scribbles."""
    from accl_harness.data.formats import write_labels

    data = small_classes(4)
    greys = ((data.images[:, 0] + 1) * 127.5).round().to(torch.uint8)
    for split in ("train", "test"):
        for i, name in enumerate(data.names):
            kinds = {"images": greys, "masks": data.masks}
            if split == "train":
                kinds["weak"] = data.weak_labels
            for kind, values in kinds.items():
                write_labels(root / split / kind / f"{name}.png", values[i].numpy())
    return root


def assert_same_end(run, expected):
    """Bit for bit: weights, optimisers, random numbers, curves and scores."""
    ours, theirs = Run(run).load_checkpoint(), Run(expected).load_checkpoint()
    ours.pop("seconds"), theirs.pop("seconds")
    assert_equal(ours, theirs)
    assert rows_without_seconds(run) == rows_without_seconds(expected)
    assert (run / "per_image.csv").read_text() == (expected / "per_image.csv").read_text()


def assert_equal(a, b):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b


class Stop(Exception):
    """What a test interrupts a training with."""
