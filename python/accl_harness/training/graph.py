"""The whole training step as one CUDA graph: at batch 1 its launches cost more than its kernels."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from ..terms import Batch
from .step import Record, TrainingStep

WARM_UP = 3
"""Full batches before the recording: optimisers make their state, libraries choose kernels."""


class GraphedStep:
    """Does what a :class:`TrainingStep` does, by replaying its recording.

    The first steps and the batches with fewer images (an epoch's last) run as they are; all of
    them are steps of the training. For one process; the optimisers must be ``capturable`` with
    their rate in a tensor on the device.

    Args:
        step: what is recorded.
        full: images of a full batch, the only ones whose step is recorded.
    """

    def __init__(self, step: TrainingStep, full: int):
        self.step = step
        self.full = full
        self.warm_steps = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.static: Batch | None = None
        self.record: Record | None = None
        self.stream = torch.cuda.Stream()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the losses in ``sums``."""
        return self.step.columns

    @property
    def sums(self) -> Tensor:
        """The statistics' sums, see :class:`TrainingStep`."""
        return self.step.sums

    def forget(self) -> None:
        """Begin new sums."""
        self.step.forget()

    def __call__(self, batch: Batch) -> None:
        """One update of D and of G."""
        is_full = len(batch.images) == self.full
        if is_full and self.graph is None and self.warm_steps == WARM_UP:
            self._record(batch)
        if self.graph is None or not is_full:
            self._eager(batch)
            self.warm_steps += is_full
        else:
            self._replay(batch)

    def _replay(self, batch: Batch) -> None:
        _copy(batch, self.static)
        self.graph.replay()
        self.step.records.append(Record(*(values.clone() for values in self.record)))

    def _eager(self, batch: Batch) -> None:
        # On the stream of the recording, so that the caching allocator and cuDNN meet it there.
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.step(batch)
        torch.cuda.current_stream().wait_stream(self.stream)

    def _record(self, batch: Batch) -> None:
        """Record a step without running it; its inputs are then refilled in place."""
        self.static = Batch(**{name: each.clone() for name, each in _tensors(batch).items()})
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=self.stream):
            self.step(self.static)
        self.record = self.step.records.pop()


def _tensors(batch: Batch) -> dict[str, Tensor]:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _copy(batch: Batch, static: Batch) -> None:
    source, target = _tensors(batch), _tensors(static)
    assert source.keys() == target.keys()
    for name, value in source.items():
        target[name].copy_(value)
