"""The terms beyond the paper and what surrounds them, by hand; and whole trainings with them."""

import dataclasses
import json
import math

import pytest
import torch
from accl_harness.config import make_config
from accl_harness.data.dataset import Dataset
from accl_harness.data.options import CRFOptions, ImageAugmentation, ReferenceOptions
from accl_harness.data.references import ReferenceBank, make_bank, soften
from accl_harness.errors import UserError
from accl_harness.experiments.single import run_training
from accl_harness.methods import METHODS
from accl_harness.training.batches import TrainingData
from accl_harness.training.loop import Trainer
from accl_harness.training.moves import change_greys, draw_greys, inside
from accl_harness.training.ops import load_ops
from accl_harness.training.rules import (
    extent,
    flat_cost,
    gated_crf,
    measured,
    needed,
    reference_bank,
    size_prior,
    typical_difference,
    whole_objects,
)
from accl_harness.training.runtime import launch
from accl_harness.training.step import STATISTICS
from accl_harness.training.terms import GatedCRF, SizeBalance
from small_runs import phantom_folder, small_config, small_dataset

OPS = load_ops("reference")
EVERYTHING = {
    "method": "accl_crf",
    "size_weight": 0.01,
    "augment": ImageAugmentation(shift=0.25, rotation=20, scale=1.2, grey=0.2),
}


def small_trainer(data: Dataset | None = None, **options) -> Trainer:
    config = small_config(**options)
    return Trainer(config, data or small_dataset(), None, OPS, launch(config))


# The gated CRF


def test_crf_of_two_pixels_by_hand():
    p = torch.tensor([[[[0.8, 0.3]]]], dtype=torch.float64)
    image = torch.tensor([[[[0.1, 0.5]]]], dtype=torch.float64)
    tie = math.exp(-1 / (2 * 2.0**2) - 0.4**2 / (2 * 0.5**2))
    differ = 0.8 + 0.3 - 2 * 0.8 * 0.3
    term = GatedCRF(1.0, radius=1, sigma_space=2.0, sigma_image=0.5)
    # Both directions of the pair, over two pixels.
    assert term.energy(OPS, p, image, None).item() == pytest.approx(2 * tie * differ / 2)


def test_crf_leaves_out_what_a_move_brought_in():
    p = torch.tensor([[[[0.8, 0.3, 0.9]]]])
    image = torch.tensor([[[[0.1, 0.5, 0.5]]]])
    term = GatedCRF(1.0, radius=1, sigma_space=2.0, sigma_image=0.5)
    seen = torch.tensor([[[True, True, False]]])
    alone = term.energy(OPS, p[..., :2], image[..., :2], None)
    assert term.energy(OPS, p, image, seen).item() == pytest.approx(alone.item())


def test_pixels_that_moved_in_from_outside():
    moves = torch.tensor([[[1.0, 0, 2 / 4], [0, 1, 0]], [[1, 0, 0], [0, 1, -2 / 3]]])
    right, top = inside(moves, 3, 4)
    assert right.tolist() == [[True, True, True, False]] * 3
    assert top.tolist() == [[False] * 4, [True] * 4, [True] * 4]
    still = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
    assert inside(still, 3, 4).all()


def test_batches_carry_the_moved_image_and_what_is_seen_of_it():
    data = small_dataset(6)
    data.images = torch.arange(32.0).expand(6, 1, 32, 32) / 32
    augment = ImageAugmentation(shift=0.5, grey=0.3)
    batches = TrainingData(small_config(method="sccl_crf", augment=augment), data, None, "cpu")
    for batch in batches.epoch(1):
        assert not torch.equal(batch.images, batch.guide)
        # The outermost column may lie half between the frame and its border value.
        lines = batch.guide[0, 0][:, batch.seen[0].any(0)][:, 1:-1].diff(dim=1)
        torch.testing.assert_close(lines, torch.full_like(lines, 1 / 32), atol=1e-5, rtol=0)
        assert not batch.seen.all()


def test_without_a_crf_batches_carry_nothing_for_it():
    augment = ImageAugmentation(shift=0.5)
    batches = TrainingData(
        small_config(method="sccl", augment=augment), small_dataset(), None, "cpu"
    )
    assert all(batch.guide is None and batch.seen is None for batch in batches.epoch(1))


def test_crf_of_a_mask_in_a_flat_image_by_hand():
    mask = torch.tensor([[[0, 1, 0]]], dtype=torch.uint8)
    term = GatedCRF(1.0, radius=1, sigma_space=2.0, sigma_image=0.5)
    # Two pairs of unlike neighbours, both directions, over three pixels.
    assert flat_cost(term, mask, OPS) == pytest.approx(4 * math.exp(-1 / 8) / 3)
    with pytest.raises(UserError, match=r"crf\.weight: the reference masks have no outline"):
        flat_cost(term, torch.ones_like(mask), OPS)


def test_typical_difference_passes_over_a_black_frame():
    image = torch.zeros(1, 1, 8, 8)
    image[..., 4:, :] = torch.tensor([0.0, 0.1, 0.3, 0.6, 0.0, 0.1, 0.3, 0.6])
    neighbours = [0.1, 0.2, 0.3, 0.6, 0.1, 0.2, 0.3] * 4 + [0.1, 0.3, 0.6] * 2
    wanted = torch.tensor(neighbours).median().item()
    assert typical_difference(image) == pytest.approx(wanted)
    with pytest.raises(UserError, match=r"crf\.sigma_image: no training image has an edge"):
        typical_difference(torch.zeros(1, 1, 8, 8))


def test_numbers_of_the_crf_come_from_options_or_data():
    data = small_dataset()
    config = small_config(method="sccl_crf")
    term = gated_crf(config, data.images, data.masks, OPS)
    assert term.sigma_image == pytest.approx(2 * typical_difference(data.images))
    assert term.weight * flat_cost(term, data.masks, OPS) == pytest.approx(config.crf.cost)
    given = small_config(method="sccl", crf=CRFOptions(0.3, 1.0, 3, 2.0, 0.1))
    assert gated_crf(given, data.images, None, OPS) == GatedCRF(0.3, 3, 2.0, 0.1)


# What is left to the data


def test_prior_and_shift_from_the_masks_by_hand():
    masks = torch.zeros(2, 10, 10, dtype=torch.uint8)
    masks[0, 2:6, 3:5] = 1  # 4 high, 2 wide
    masks[1, 0, 1:9] = 1  # 8 wide
    assert extent(masks) == pytest.approx((0.4 + 0.8) / 2)
    left = small_config(method="fs_ce", prior=None, augment=ImageAugmentation(shift=None, grey=0.1))
    config = measured(left, masks)
    assert config.prior == pytest.approx((8 + 8) / 200)
    assert config.augment.shift == pytest.approx(0.4 / 3)
    assert config.augment.grey == 0.1
    assert measured(left, masks[:, :1].repeat(1, 10, 1)[:1] * 0 + 1).prior == 0.5
    small = torch.zeros(1, 100, 100, dtype=torch.uint8)
    small[0, 50, 50] = 1
    assert (measured(left, small).prior, measured(left, small).augment.shift) == (0.005, 0.25)
    assert (measured(left, None).prior, measured(left, None).augment.shift) == (0.02, 0.25)
    given = small_config(prior=0.3, augment=ImageAugmentation(shift=0.1))
    assert measured(given, masks) == given


def test_the_default_training_is_measured_and_the_papers_is_not():
    default = make_config("small")
    assert (default.prior, default.augment) == (None, ImageAugmentation(shift=None))
    for preset in ("paper", "demo"):
        config = make_config(preset)
        assert config.prior is not None
        assert config.augment == ImageAugmentation()
    data = small_dataset()
    config = small_config(method="fs_ce", prior=None, augment=ImageAugmentation(shift=None))
    trainer = small_trainer(data, method="fs_ce", prior=None, augment=config.augment)
    assert trainer.config == measured(config, data.masks)
    bias = trainer.step.generator.decoder[0][-1].bias.item()
    assert 1 / (1 + math.exp(-bias)) == pytest.approx(data.masks.float().mean().item())


# Soft size prior


def test_size_prior_by_hand():
    masks = torch.zeros(2, 4, 4, dtype=torch.uint8)
    masks[0, 0, 0], masks[1, :2] = 1, 1
    prior = size_prior(0.5, masks)
    low, high = math.log(2), math.log(9)
    assert (prior.mean, prior.deviation) == pytest.approx(((low + high) / 2, (high - low) / 2))
    assert size_prior(0.5, masks[:1]).deviation == 0.1
    sizes = torch.tensor([math.exp(prior.mean + 2 * prior.deviation) - 1, 1e4])
    present = torch.tensor([True, False])
    assert prior.penalty(sizes, present).item() == pytest.approx((0.5 * 2**2 + 0) / 2)


def test_size_prior_takes_the_masks_that_show_objects():
    data = small_dataset()
    data.masks[1] = 0
    bank = make_bank("unpaired", data)
    config = small_config(method="accl_crf")
    assert len(whole_objects(config, data, bank)) == 3
    weak = small_config(method="partial_accl", size_prior=0.1)
    own = reference_bank(weak, data)
    assert torch.equal(whole_objects(weak, data, own), data.masks[[0, 2, 3]])
    data.masks = None
    assert whole_objects(weak, data, own) is None
    empty = ReferenceBank(torch.zeros(2, 4, 4, dtype=torch.uint8), False)
    assert whole_objects(config, data, empty) is None
    with pytest.raises(UserError, match="size_prior, size_balance and the default of crf"):
        needed(config, None)
    assert needed(small_config(method="fs_ce"), None) is None


def test_prior_of_painted_masks_alone():
    """The numbers come from the masks that are painted, not from all of the training's."""
    options = {"references": ReferenceOptions(kind="augmented", painted=1, count=20)}
    trainer = small_trainer(method="accl_crf", **options)
    masks = reference_bank(trainer.config, small_dataset()).masks
    assert trainer.step.objective.size_prior == size_prior(0.1, masks)
    assert len(masks) == 20


def test_sizes_count_as_before_the_move():
    """An image enlarged by a factor is asked for a mask enlarged by it."""
    trainer = small_trainer(method="accl_crf")
    prior, pulls = trainer.step.objective.size_prior, []
    batch = next(iter(trainer.data.epoch(1)))
    head = OPS.segmentation_head(torch.zeros(1, 1, 32, 32), batch.labels)
    for factor in (None, torch.tensor([2.0])):
        batch.enlarged = factor
        pulls.append(trainer.step._size_terms(batch, head)[0].item())
    present = torch.tensor([True])
    for pull, size in zip(pulls, (512.0, 256.0), strict=True):
        assert pull == pytest.approx(prior.penalty(torch.tensor([size]), present).item(), rel=1e-5)


def test_moves_know_how_much_they_enlarge():
    augment = ImageAugmentation(shift=0.1, scale=1.5, rotation=30, flip=True)
    config = small_config(method="fs_ce", augment=augment, size=64)
    data = small_dataset(6, size=64)
    data.masks[:] = 0
    data.masks[:, 22:42, 22:42] = 1
    for batch in TrainingData(config, data, None, "cpu").epoch(1):
        assert batch.masks.sum() / batch.enlarged == pytest.approx(400, rel=0.06)
    still = config.replace(augment=ImageAugmentation(shift=0.1, rotation=30))
    assert all(b.enlarged is None for b in TrainingData(still, data, None, "cpu").epoch(1))


# Size balance


def alone(value):
    return value


def test_size_balance_by_hand():
    balance = SizeBalance(1.0, size=10.0, images=4)
    present, predicted = torch.tensor([True, False]), torch.tensor([6.0, 99.0])
    sizes = torch.tensor([5.0, 7.0], requires_grad=True)
    assert balance(predicted, sizes, present, alone).item() == 0
    # One image of four was 4 too small: the running mean falls by 1, to 0.9 of the right one.
    assert balance.seen.item() == 9
    loss = balance(predicted, sizes, present, alone)
    assert loss.item() == pytest.approx(-0.1 * (5 / 10 + 0) / 2)
    loss.backward()
    assert sizes.grad.tolist() == pytest.approx([-0.1 / 10 / 2, 0])
    assert balance.seen.item() == 9 - 3 / 4


def test_size_balance_holds_the_mean_and_not_the_single_size():
    """Two images whose other terms want 4 and 12 pixels, where the masks have 16 on average."""
    balance, wanted = SizeBalance(1.0, size=16.0, images=50), torch.tensor([4.0, 12.0])
    sizes = wanted.clone().requires_grad_()
    optimizer = torch.optim.SGD([sizes], lr=1.0)
    for step in range(4000):
        part = sizes[step % 2 : step % 2 + 1]
        loss = 5e-4 * (part - wanted[step % 2]).square().sum()
        loss = loss + balance(part.detach(), part, torch.tensor([True]), alone)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # What is left is the price of a pull: 1e-3 * (mean - 8) = (1 - mean / 16) / 16.
    assert sizes.mean().item() == pytest.approx((1 / 16 + 8e-3) / (1e-3 + 1 / 256), rel=0.02)
    assert (sizes[1] - sizes[0]).item() == pytest.approx(8, rel=0.05)


def test_size_balance_is_part_of_the_checkpoint():
    trainer = small_trainer(method="accl_crf", size_balance=3.0)
    balance = trainer.step.objective.size_balance
    assert balance.seen == balance.size == small_dataset().masks.sum((1, 2)).double().mean()
    trainer.train_epoch(lambda: None)
    state = trainer.state_dict()
    other = small_trainer(method="accl_crf", size_balance=3.0)
    other.load_state_dict(state)
    assert other.step.objective.size_balance.seen == state["size_balance"]["seen"] != balance.size


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
    augment = ImageAugmentation(shift=0.3)
    hard = small_config(method="paired_accl", augment=augment)
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
    moved = small_config(method="unpaired_accl", augment=ImageAugmentation(shift=0.25))
    grey = moved.replace(augment=ImageAugmentation(shift=0.25, grey=0.2))
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
    trainer = small_trainer(method=method, **options)
    row = trainer.train_epoch(lambda: None)
    assert row["size_balance"] != 0
    assert row["crf"] > 0
    assert row["size_prior"] > 0
    assert math.isfinite(row["loss_g"])


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.in_paper])
def test_the_papers_seven_have_none_of_it(method):
    trainer = small_trainer(method=method, dropout=0.0)
    objective, config = trainer.step.objective, trainer.config
    assert (objective.crf, objective.size_prior, objective.size_balance) == (None, None, None)
    assert objective.noise == 0
    assert (config.softening, config.sees_image) == (0, True)
    before = torch.get_rng_state()
    batch = next(iter(trainer.data.epoch(1)))
    trainer.step(batch)
    assert torch.equal(torch.get_rng_state(), before)
    row = trainer.train_epoch(lambda: None)
    assert (row["crf"], row["size_prior"], row["size_balance"]) == (None, None, None)


def test_the_loss_is_the_weighted_sum_of_its_terms():
    trainer = small_trainer(**EVERYTHING)
    trainer.step.forget()
    trainer.step(next(iter(trainer.data.epoch(1))))
    found = dict(zip(STATISTICS, trainer.step.sums.tolist(), strict=True))
    objective = trainer.step.objective
    wanted = (
        found["partial_ce"]
        + objective.size_weight * found["size_penalty"]
        + objective.accl_weight * found["accl"]
        + objective.size_prior.weight * found["size_prior"]
        + objective.size_balance.weight * found["size_balance"]
        + objective.crf.weight * found["crf"]
    )
    assert found["loss_g"] == pytest.approx(wanted, rel=1e-5)
    assert all(found[name] > 0 for name in ("size_prior", "crf", "accl", "partial_ce"))


@pytest.mark.parametrize("term", ["crf", "size_prior"])
def test_gradients_reach_the_generator(term):
    """With everything else weighed 0, a step still moves G, and lowers the term."""
    data = small_dataset()
    data.weak_labels[data.weak_labels == 1] = 1
    options = {"crf": CRFOptions(weight=1.0)} if term == "crf" else {"size_prior": 1.0}
    trainer = small_trainer(data, method="partial_ce", dropout=0.0, norm="none", **options)
    data_term_off = dataclasses.replace(next(iter(trainer.data.epoch(1))), label_share=0.0)
    trainer.step.forget()
    for _ in range(20):
        trainer.step(data_term_off)
    values = [record.losses[STATISTICS.index(term)].item() for record in trainer.step.records]
    assert values[-1] < values[0]


def test_an_interrupted_run_with_everything_ends_like_an_uninterrupted_one(tmp_path):
    from test_checkpoint import Stop, assert_same_end

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
    losses = tuple(torch.zeros(10).unbind())
    with torch.profiler.profile() as profile:
        step._keep(batch, probabilities, losses)
    outer = [event for event in profile.events() if event.cpu_parent is None]
    assert len(outer) <= 8, [event.name for event in outer]


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
