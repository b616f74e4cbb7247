"""Which step a CUDA graph records; the recording itself needs a GPU (see test_distributed)."""

import pytest
import torch
from accl_harness.terms import Batch
from accl_harness.training.graph import WARM_UP, GraphedStep


class Watched(GraphedStep):
    """Notes what would be done in place of doing it."""

    def __init__(self, full):
        super().__init__(step=None, full=full)
        self.done = []

    def _eager(self, batch):
        self.done.append(("eager", len(batch.images)))

    def _record(self, batch):
        self.done.append(("record", len(batch.images)))
        self.graph = "recorded"

    def _replay(self, batch):
        self.done.append(("replay", len(batch.images)))


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Stream", lambda: None)
    return Watched


def batches(*sizes):
    return [Batch(torch.zeros(n, 1, 2, 2), torch.zeros(n, 2, 2)) for n in sizes]


def test_the_full_batch_is_recorded_though_the_fourth_is_smaller(watched):
    """75 images in batches of 20: the fourth holds 15."""
    step = watched(20)
    for batch in batches(20, 20, 20, 15, 20, 20, 20, 15):
        step(batch)
    eager = [("eager", 20)] * WARM_UP + [("eager", 15)]
    replayed = [("record", 20), *[("replay", 20)] * 3, ("eager", 15)]
    assert step.done == eager + replayed


def test_small_batches_are_no_warming_up(watched):
    """21 images in batches of 20: libraries choose their kernels in full batches."""
    step = watched(20)
    for batch in batches(*[20, 1] * WARM_UP, 20):
        step(batch)
    assert step.done[:-2] == [("eager", 20), ("eager", 1)] * WARM_UP
    assert step.done[-2:] == [("record", 20), ("replay", 20)]
