"""Random moves of the training images: what they do to pixels, and that all parts move together."""

import dataclasses
import math

import pytest
import torch
from accl_harness.data.image_moves import draw_moves, move
from accl_harness.data.options import ImageMoves
from accl_harness.data.references import make_bank
from accl_harness.errors import UserError
from accl_harness.experiments.single import run_training
from accl_harness.training.batches import TrainingData
from small_runs import phantom_folder, small_config, small_dataset

PLANE = torch.arange(12, dtype=torch.uint8).view(1, 3, 4)


def drawn(count=2000, **ranges):
    return draw_moves(ImageMoves(**ranges), count, torch.Generator().manual_seed(0))


def within(values, bound):
    """Whether the values fill the range to either side and stay in it."""
    return bool(values.abs().max() <= 1.001 * bound and -values.min() > 0.97 * bound < values.max())


@pytest.mark.parametrize(
    ("matrix", "wanted"),
    [
        ([[1, 0, 0], [0, 1, 0]], [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]),
        # The source one column to the right: the last column goes on.
        ([[1, 0, 2 / 4], [0, 1, 0]], [[1, 2, 3, 3], [5, 6, 7, 7], [9, 10, 11, 11]]),
        ([[1, 0, 0], [0, 1, -2 / 3]], [[0, 1, 2, 3], [0, 1, 2, 3], [4, 5, 6, 7]]),
        ([[-1, 0, 0], [0, 1, 0]], [[3, 2, 1, 0], [7, 6, 5, 4], [11, 10, 9, 8]]),
    ],
    ids=["nothing", "columns", "rows", "mirrored"],
)
def test_moves_by_hand(matrix, wanted):
    matrix = torch.tensor([matrix], dtype=torch.float32)
    moved = move(PLANE, matrix, smooth=False)
    assert moved.dtype == torch.uint8
    assert moved[0].tolist() == wanted
    smooth = move(PLANE.double().unsqueeze(1), matrix, smooth=True)
    assert smooth.dtype == torch.float64
    torch.testing.assert_close(smooth[0, 0], torch.tensor(wanted).double(), atol=1e-5, rtol=0)


def test_a_quarter_turn_by_hand():
    quarter = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])
    square = torch.tensor([[[1, 2], [3, 4]]])
    assert move(square, quarter, smooth=False)[0].tolist() == [[2, 4], [1, 3]]


def test_half_a_pixel_is_interpolated():
    half = torch.tensor([[[1.0, 0.0, 1 / 4], [0.0, 1.0, 0.0]]])
    moved = move(PLANE.float().unsqueeze(1), half, smooth=True)
    assert moved[0, 0, 0].tolist() == pytest.approx([0.5, 1.5, 2.5, 3.0])


def test_the_ranges_are_used_and_kept():
    assert torch.equal(drawn()[0], torch.tensor([[1.0, 0, 0], [0, 1, 0]]))
    shifts = drawn(shift=0.25)[:, :, 2]
    assert within(shifts, 0.5)
    turns = drawn(rotation=30.0)[:, :, :2]
    angle = torch.rad2deg(torch.atan2(turns[:, 1, 0], turns[:, 0, 0]))
    assert within(angle, 30.0)
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(len(turns)))
    # The determinant is that of result to source: an enlargement by 1.5 has 1 / 1.5^2.
    areas = torch.linalg.det(drawn(scale=1.5)[:, :, :2]).rsqrt()
    assert within(areas.log() / math.log(1.5), 1.0)
    flips = drawn(flip=True)[:, :, :2].diagonal(dim1=1, dim2=2)
    assert set(map(tuple, flips.tolist())) == {(1, 1), (1, -1), (-1, 1), (-1, -1)}
    assert flips.mean(0).abs().max() < 0.1


def test_everything_of_an_image_moves_together():
    data = small_dataset(8)
    data.images = 2 * data.masks.unsqueeze(1).float() - 1
    options = ImageMoves(shift=0.25, flip=True, rotation=180, scale=1.3)
    config = small_config(method="paired_accl", batch_size=4, image_moves=options)
    batches = TrainingData(config, data, make_bank("paired", data), "cpu")
    moved = 0
    for batch in batches.epoch(1):
        assert torch.equal(batch.masks, batch.references.squeeze(1).to(torch.uint8))
        assert ((batch.images.squeeze(1) > 0) == batch.masks.bool()).float().mean() > 0.99
        labelled = batch.labels == 1
        assert labelled.any()
        assert batch.masks[labelled].all()
        moved += sum(
            not any(torch.equal(mask, known) for known in data.masks) for mask in batch.masks
        )
    assert moved == 8


def test_an_epoch_has_its_own_moves_and_can_be_repeated():
    config = small_config(method="partial_ce", image_moves=ImageMoves(shift=0.25))
    batches = TrainingData(config, small_dataset(), None, "cpu")

    def images(epoch):
        return torch.stack([batch.images for batch in batches.epoch(epoch)])

    assert torch.equal(images(1), images(1))
    assert not torch.equal(images(1).sort(0).values, images(2).sort(0).values)


def test_without_moves_order_and_references_are_the_same():
    """Moves draw from a stream of their own: the option changes nothing else."""
    data = small_dataset()
    still = small_config(method="unpaired_accl")
    moving = still.replace(image_moves=ImageMoves(scale=1.0 + 1e-7))
    pairs = zip(
        TrainingData(still, data, make_bank("unpaired", data), "cpu").epoch(1),
        TrainingData(moving, data, make_bank("unpaired", data), "cpu").epoch(1),
        strict=True,
    )
    for a, b in pairs:
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.references, b.references)


def test_two_processes_show_what_one_shows():
    data = small_dataset(6)
    config = small_config(
        method="partial_ce", batch_size=3, image_moves=ImageMoves(shift=0.9, flip=True)
    )
    whole = TrainingData(config, data, None, "cpu")
    parts = [TrainingData(config, data, None, "cpu", rank, 2) for rank in (0, 1)]
    for batch, *shares in zip(whole.epoch(1), *(part.epoch(1) for part in parts), strict=True):
        for rank, share in enumerate(shares):
            assert torch.equal(share.images, batch.images[rank::2])
            assert torch.equal(share.labels, batch.labels[rank::2])


@pytest.mark.parametrize(
    ("option", "value"),
    [("shift", -0.1), ("shift", 1.0), ("rotation", 181.0), ("scale", 0.9), ("scale", float("inf"))],
)
def test_bad_ranges_are_refused(option, value):
    with pytest.raises(UserError, match=f"image_moves.{option}: wanted .*, got {value}"):
        ImageMoves(**{option: value})


def test_a_run_keeps_its_moves(tmp_path):
    data = phantom_folder(tmp_path)
    options = ImageMoves(shift=0.25, flip=True)
    config = small_config(data=str(data), out=str(tmp_path / "run"), epochs=2, image_moves=options)
    run_training(config.replace(checkpoint_every=1), quiet=True)
    again = config.replace(image_moves=dataclasses.replace(options, shift=0.1))
    (tmp_path / "run" / "metrics.json").unlink()
    with pytest.raises(UserError, match="was trained with image_moves"):
        run_training(again, resume=True, quiet=True)
