"""Trainings beyond the paper: what D sees, grey values, all terms together, and what is kept."""

import json
import math

import pytest
import torch
from accl_harness.data.formats import write_mask
from accl_harness.data.image_moves import change_greys, draw_greys
from accl_harness.data.options import ImageMoves, ReferenceOptions
from accl_harness.data.references import make_bank, soften
from accl_harness.errors import UserError
from accl_harness.experiments.single import run_training
from accl_harness.methods import METHODS
from accl_harness.terms.gated_crf import CRFOptions
from accl_harness.terms.size_prior import SizePrior
from accl_harness.training.batches import TrainingData
from accl_harness.training.measures import measured
from accl_harness.training.ops import load_ops
from small_runs import (
    Stop,
    assert_same_end,
    measure,
    phantom_folder,
    small_config,
    small_dataset,
    small_trainer,
    sums_by_name,
)

OPS = load_ops("reference")
EVERYTHING = {
    "method": "accl_crf",
    "size_weight": 0.01,
    "image_moves": ImageMoves(shift=0.25, rotation=20, scale=1.2, grey=0.2),
}


# What D sees


def test_softened_masks_by_hand():
    mask = torch.zeros(1, 1, 9, 9)
    mask[0, 0, 4, 4] = 1
    soft = soften(mask, 0.8)
    weights = [math.exp(-0.5 * (step / 0.8) ** 2) for step in range(-3, 4)]
    line = torch.tensor([0, *weights, 0]) / sum(weights)
    torch.testing.assert_close(soft[0, 0], line[:, None] * line)
    assert soften(torch.ones(1, 1, 4, 4), 2.0).allclose(torch.ones(1, 1, 4, 4))
    assert soften(mask, 0.0) is mask


def test_references_are_softened_after_the_move():
    moves = ImageMoves(shift=0.3)
    hard = small_config(method="paired_accl", image_moves=moves)
    soft = hard.replace(soften=1.5)
    data = small_dataset()
    pairs = zip(
        TrainingData(hard, data, make_bank("paired", data), "cpu").epoch(1),
        TrainingData(soft, data, make_bank("paired", data), "cpu").epoch(1),
        strict=True,
    )
    for a, b in pairs:
        assert torch.equal(soften(a.references, 1.5), b.references)


def test_discriminator_sees_noise_on_real_and_fake_in_both_passes(monkeypatch):
    trainer = small_trainer(method="unpaired_accl", d_noise=0.5, dropout=0.0, norm="batch")
    step, seen = trainer.step, []
    forward = step.discriminator.forward

    def record(images, masks):
        seen.append(masks.detach())
        return forward(images, masks)

    monkeypatch.setattr(step.discriminator, "forward", record)
    batch = next(iter(trainer.data.epoch(1)))
    with torch.no_grad():
        clean = step.generator(batch.images).sigmoid()
    step(batch)
    fake, real, again = (a - b for a, b in zip(seen, (clean, batch.references, clean), strict=True))
    for noise in (fake, real, again):
        assert noise.std().item() == pytest.approx(0.5, rel=0.1)
        assert abs(noise.mean().item()) < 0.1
    assert (fake - again).std() > 0.5
    assert (fake - real).std() > 0.5


def test_grey_values_by_hand():
    images = torch.tensor([-1.0, 0.0, 1.0]).view(1, 1, 1, 3)
    greys = torch.tensor([[1.2, 0.1, 2.0]])
    # Black 0, the middle 0.5, white 1: 1.2 * (0, 0.25, 1) + 0.1.
    wanted = [2 * 0.1 - 1, 2 * 0.4 - 1, 2 * 1.3 - 1]
    assert change_greys(images, greys).flatten().tolist() == pytest.approx(wanted)
    draws = draw_greys(0.2, 2000, torch.Generator().manual_seed(0))
    gain, offset, gamma = draws.unbind(1)
    for factor in (gain, gamma):
        logs = factor.log() / math.log(1.2)
        assert logs.abs().max() <= 1.001
        assert min(logs.max(), -logs.min()) > 0.97
    assert offset.abs().max() <= 0.2
    assert torch.corrcoef(draws.T).fill_diagonal_(0).abs().max() < 0.1


def test_grey_values_change_nothing_else():
    data = small_dataset()
    moved = small_config(method="unpaired_accl", image_moves=ImageMoves(shift=0.25))
    grey = moved.replace(image_moves=ImageMoves(shift=0.25, grey=0.2))
    pairs = zip(
        TrainingData(moved, data, make_bank("unpaired", data), "cpu").epoch(1),
        TrainingData(grey, data, make_bank("unpaired", data), "cpu").epoch(1),
        strict=True,
    )
    for a, b in pairs:
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.references, b.references)
        assert not torch.equal(a.images, b.images)


# Methods and trainings


@pytest.mark.parametrize("method", METHODS)
def test_the_terms_go_with_every_method(method):
    options = {"crf": CRFOptions(weight=0.3), "size_prior": 0.2, "size_balance": 0.5}
    options["consistency"] = 0.4
    trainer = small_trainer(method=method, **options)
    row = trainer.train_epoch(lambda: None)
    assert row["size_balance"] != 0
    assert row["crf"] > 0
    assert row["size_prior"] > 0
    assert row["consistency"] > 0
    assert math.isfinite(row["loss_g"])


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.in_paper])
def test_the_papers_seven_have_none_of_it(method):
    trainer = small_trainer(method=method, dropout=0.0)
    config = trainer.config
    assert {term.name for term in trainer.step.terms} <= {"partial_ce", "size_penalty", "accl"}
    assert config.noise == 0
    assert (config.softening, config.sees_image) == (0, True)
    before = torch.get_rng_state()
    batch = next(iter(trainer.data.epoch(1)))
    trainer.step(batch)
    assert torch.equal(torch.get_rng_state(), before)
    row = trainer.train_epoch(lambda: None)
    for term in ("crf", "size_prior", "size_balance", "consistency"):
        assert row[term] is None


def test_the_loss_is_the_weighted_sum_of_its_terms():
    trainer = small_trainer(**EVERYTHING)
    trainer.step.forget()
    trainer.step(next(iter(trainer.data.epoch(1))))
    found = sums_by_name(trainer.step)
    weights = {term.name: term.weight for term in trainer.step.terms}
    weights_given = {name: trainer.config.weight(name) for name in weights if name != "crf"}
    assert weights_given == {
        "partial_ce": 1,
        "size_penalty": 0.01,
        "accl": 0.3,
        "size_prior": 0.1,
        "size_balance": 3,
        "consistency": 1,
    }
    wanted = sum(weight * found[name] for name, weight in weights.items())
    assert found["loss_g"] == pytest.approx(wanted, rel=1e-5)
    names = ("size_prior", "crf", "accl", "partial_ce", "consistency")
    assert all(found[name] > 0 for name in names)


@pytest.mark.parametrize("term", ["crf", "size_prior", "consistency"])
def test_gradients_reach_the_generator(term):
    """With everything else weighed 0, a step still moves G, and lowers the term."""
    data = small_dataset()
    data.weak_labels[data.weak_labels == 1] = 1
    options = {term: CRFOptions(weight=1.0) if term == "crf" else 1.0}
    trainer = small_trainer(data, method="partial_ce", dropout=0.0, norm="none", **options)
    step, batch = trainer.step, next(iter(trainer.data.epoch(1)))
    step.terms = tuple(each for each in step.terms if each.name == term)
    step.forget()
    for _ in range(20):
        step(batch)
    place = step.columns.index(term)
    values = [record.losses[place].item() for record in step.records]
    assert values[-1] < values[0]


def test_an_interrupted_run_with_everything_ends_like_an_uninterrupted_one(tmp_path):
    data = str(phantom_folder(tmp_path))
    config = small_config(data=data, epochs=4, out=str(tmp_path / "whole"), **EVERYTHING)
    whole = run_training(config, quiet=True)

    def stop(row):
        if row["epoch"] == 2:
            raise Stop

    config = config.replace(out=str(tmp_path / "run"))
    with pytest.raises(Stop):
        run_training(config, quiet=True, on_epoch=stop)
    run = run_training(config, quiet=True, resume=True)
    assert_same_end(run, whole)
    found = json.loads((run / "metrics.json").read_text())["measured"]
    assert found["crf"]["weight"] > 0
    assert found["mean_size"] > 0
    assert len(found["log_size"]) == 2


def test_a_step_keeps_its_statistics_in_a_handful_of_calls():
    trainer = small_trainer(method="unpaired_accl")
    step, batch = trainer.step, next(iter(trainer.data.epoch(1)))
    probabilities = step.generator(batch.images).sigmoid().detach()
    losses = tuple(torch.zeros(len(step.columns)).unbind())
    with torch.profiler.profile() as profile:
        step._keep(batch, probabilities, losses)
    outer = [event for event in profile.events() if event.cpu_parent is None]
    assert len(outer) <= 9, [event.name for event in outer]


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("weight", -1.0, "0 or more"),
        ("cost", math.inf, "0 or more"),
        ("radius", 0, "at least 1"),
        ("sigma_space", 0.0, "above 0"),
        ("sigma_image", -0.1, "above 0"),
    ],
)
def test_bad_crf_options_are_refused(name, value, wanted):
    with pytest.raises(UserError, match=f"crf.{name}: wanted {wanted}, got {value}"):
        CRFOptions(**{name: value})


def test_a_discriminator_of_masks_alone_trains_in_double():
    """Reference masks take the images' type by themselves, not from standing beside an image."""
    trainer = small_trainer(precision="64", **EVERYTHING)
    assert next(iter(trainer.data.epoch(1))).references.dtype == torch.float64
    assert math.isfinite(trainer.train_epoch(lambda: None)["loss_g"])


def test_weak_labels_and_a_folder_of_painted_masks_are_enough(tmp_path):
    """No training image has a mask; what the terms need comes from the painted ones."""
    data = small_dataset()
    for i, mask in enumerate(data.masks[:2]):
        write_mask(tmp_path / f"{i}.png", mask.numpy())
    data.masks = None
    trainer = small_trainer(
        data,
        method="accl_crf",
        prior=None,
        image_moves=ImageMoves(shift=None),
        references=ReferenceOptions(folder=str(tmp_path), count=50),
    )
    made = make_bank("augmented", data, folder=tmp_path, n=50).masks
    assert trainer.config == measured(trainer.given, made)
    assert measure(SizePrior, made, size_prior=0.1) in trainer.step.terms
    row = trainer.train_epoch(lambda: None)
    assert math.isfinite(row["loss_g"])
    assert row["dsc"] is None
