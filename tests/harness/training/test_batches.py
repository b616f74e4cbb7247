"""What an epoch shows, in which order, and the shares of several processes."""

import math

import pytest
import torch
from accl_harness.data.options import ImageMoves
from accl_harness.terms.data_term import DataTerm, balancing_weights
from accl_harness.training.batches import TrainingData
from small_runs import small_config, small_dataset

import accl_ext


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


def test_parts_of_two_processes_make_up_the_batch():
    config = small_config(batch_size=3, method="partial_ce")
    data = small_dataset(4)
    parts = [TrainingData(config, data, None, "cpu", rank, 2) for rank in (0, 1)]
    assert parts[0].steps == 1
    for first, second in zip(parts[0].epoch(1), parts[1].epoch(1), strict=True):
        assert len(first.images) + len(second.images) == 3


def test_balanced_classes_count_alike():
    """3 background pixels and 1 of the object: (0.25 + 0.25) / 2 of what each costs, by hand."""
    weights = balancing_weights(torch.tensor([3.0, 1.0]))
    assert weights.tolist() == pytest.approx([4 / (2 * 3), 4 / (2 * 1)])
    logits = torch.tensor([[[[1.0, 2.0]]], [[[-1.0, 3.0]]]])
    labels = torch.tensor([[[0, 1]], [[0, 0]]], dtype=torch.uint8)
    costs = [math.log1p(math.exp(z)) for z in (1.0, -1.0, 3.0)]
    wanted = (sum(costs) / 3 + math.log1p(math.exp(-2.0))) / 2
    got = accl_ext.reference.partial_cross_entropy(logits, labels, weight=weights)
    assert got.item() == pytest.approx(wanted, rel=1e-6)


def test_a_class_alone_has_weight_1_and_nothing_labelled_none():
    assert balancing_weights(torch.tensor([0.0, 7.0])).tolist() == [0, 1]
    assert balancing_weights(torch.tensor([5.0, 0.0, 0.0])).tolist() == [1, 0, 0]
    assert balancing_weights(torch.zeros(3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("moves", [ImageMoves(), ImageMoves(shift=0.25)], ids=["still", "moved"])
def test_two_processes_weigh_the_classes_of_the_global_batch(moves):
    config = small_config(batch_size=4, method="partial_ce", class_balance=True, image_moves=moves)
    data = small_dataset(4)
    data.weak_labels[:, :5] = 0
    data.weak_labels[1, 5:] = 255
    (whole,) = TrainingData(config, data, None, "cpu").epoch(1)
    parts = [next(TrainingData(config, data, None, "cpu", r, 2).epoch(1)) for r in (0, 1)]
    logits = torch.linspace(-2, 2, whole.labels[0].numel()).view(1, 1, *whole.labels.shape[1:])

    def loss(batch):
        z = logits.expand(len(batch.labels), -1, -1, -1)
        options = term.head_options(batch, total)
        return accl_ext.reference.partial_cross_entropy(z, batch.labels, **options).item()

    term = DataTerm(classes=2, balances=True)
    own = [term.counts(part) for part in parts]
    total = sum(own)
    assert total.tolist() == term.counts(whole).tolist()
    assert len(set(term.head_options(whole, None)["weight"].tolist())) == 2
    shares = [term.share_of(counts, total).item() for counts in own]
    assert sum(shares) == pytest.approx(1)
    both = sum(loss(part) * share for part, share in zip(parts, shares, strict=True))
    assert both == pytest.approx(loss(whole))
