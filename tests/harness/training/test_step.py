"""The training step against a plainly written one, its order of updates and its statistics."""

import sys
from pathlib import Path

import pytest
import torch
from accl_harness.networks import build_discriminator, build_generator
from small_runs import small_trainer, sums_by_name

sys.path.append(str(Path(__file__).resolve().parents[3] / "benchmarks"))  # after tests/ops
from plain_train_step import PlainStep


def weights(network):
    return [p.detach().clone() for p in network.parameters()]


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize(
    "terms",
    [
        {"method": "fs_ce"},
        {"method": "unpaired_accl", "alpha": 0.05},
        {"method": "paired_accl", "size_weight": 0.01, "batch_size": 2},
    ],
    ids=["fs_ce", "accl", "accl-and-size"],
)
def test_step_equals_a_plainly_written_one(norm, terms):
    trainer = small_trainer(norm=norm, dropout=0.0, **terms)
    config, step = trainer.config, trainer.step
    for network in (step.generator, step.discriminator):
        if network is not None:
            network.double()
    plain_g = build_generator(config).double()
    plain_g.load_state_dict(step.generator.state_dict())
    plain_d = None
    if step.discriminator is not None:
        plain_d = build_discriminator(config).double()
        plain_d.load_state_dict(step.discriminator.state_dict())
    plain = PlainStep(
        plain_g,
        plain_d,
        accl_weight=config.accl_weight,
        size_weight=config.weight("size_penalty"),
        bounds=trainer.bounds,
    )
    step.forget()
    losses = []
    for epoch in (1, 2):
        for batch in trainer.data.epoch(epoch):
            batch.images = batch.images.double()
            batch.references = None if plain_d is None else batch.references.double()
            step(batch)
            losses.append(plain(batch.images, batch.labels, batch.references))
    total = sums_by_name(step)
    assert total["loss_g"] == pytest.approx(sum(losses).item(), rel=1e-6)
    pairs = [(step.generator, plain_g)]
    pairs += [(step.discriminator, plain_d)] if plain_d is not None else []
    for ours, theirs in pairs:
        for a, b in zip(weights(ours), weights(theirs), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_discriminator_is_frozen_in_the_generators_pass():
    trainer = small_trainer(method="unpaired_accl")
    step = trainer.step
    seen = []

    def record(network):
        seen.append((network, [p.requires_grad for p in step.discriminator.parameters()]))
        if network is step.generator:
            seen.append(("gradients of D", [p.grad.clone() for p in d_parameters]))
        else:
            assert all(p.grad is None for p in step.generator.parameters())
            seen.append(("gradients of D", [p.grad.clone() for p in d_parameters]))

    d_parameters = list(step.discriminator.parameters())
    step.sum_gradients = record
    step(next(iter(trainer.data.epoch(1))))
    (first, trains), (_, after_d), (second, trains_g), (_, after_g) = seen
    assert first is step.discriminator
    assert second is step.generator
    assert all(trains)
    assert not any(trains_g)
    for a, b in zip(after_d, after_g, strict=True):
        assert torch.equal(a, b)


def test_generator_learns_through_the_updated_discriminator():
    trainer = small_trainer(method="unpaired_accl", norm="none", dropout=0.0)
    step, batch = trainer.step, next(iter(trainer.data.epoch(1)))
    with torch.no_grad():
        probabilities = step.generator(batch.images).sigmoid()
    before = weights(step.discriminator)
    step.forget()
    step(batch)
    assert not torch.equal(before[0], step.discriminator.layers[0].weight)
    with torch.no_grad():
        scores = step.discriminator(batch.images, probabilities)
    expected = ((scores - 1) ** 2).mean().item()
    assert sums_by_name(step)["accl"] == pytest.approx(expected, rel=1e-5)


def test_statistics_count_pixels_and_overlap():
    trainer = small_trainer(method="fs_ce", batch_size=4)
    last = trainer.step.generator.decoder[0][-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, 5.0)
    trainer.step.forget()
    batch = next(iter(trainer.data.epoch(1)))
    trainer.step(batch)
    found = sums_by_name(trainer.step)
    pixels, truth = 32 * 32, batch.masks.sum((1, 2))
    assert found["predicted"] == 4 * pixels
    assert found["truth"] == truth.sum()
    expected = (2 * truth / (pixels + truth)).sum().item()
    assert found["dsc"] == pytest.approx(expected)
