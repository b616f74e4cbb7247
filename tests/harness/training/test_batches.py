"""What an epoch shows, in which order, and the shares of several processes."""

import pytest
import torch
from accl_harness.training.batches import TrainingData
from small_runs import small_config, small_dataset


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own():
    data = small_dataset(7)
    batches = TrainingData(small_config(batch_size=3), data, None, "cpu")
    orders = []
    for epoch in (1, 2, 1):
        images = torch.cat([batch.images for batch in batches.epoch(epoch)])
        orders.append([int((data.images == image).flatten(1).all(1).nonzero()) for image in images])
    assert sorted(orders[0]) == list(range(7))
    assert orders[0] != orders[1]
    assert orders[0] == orders[2]
    assert batches.steps == 3


def test_shares_of_two_processes_add_up():
    config = small_config(batch_size=3, method="partial_ce")
    data = small_dataset(4)
    data.weak_labels[1] = 255
    parts = [TrainingData(config, data, None, "cpu", rank, 2) for rank in (0, 1)]
    assert parts[0].steps == 1
    for first, second in zip(parts[0].epoch(1), parts[1].epoch(1), strict=True):
        assert len(first.images) + len(second.images) == 3
        assert first.image_share + second.image_share == pytest.approx(1)
        assert first.label_share + second.label_share == pytest.approx(1)
