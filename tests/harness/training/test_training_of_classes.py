"""Training with several classes: what the terms, the statistics and the references become."""

import math

import numpy as np
import pytest
import torch
from accl_harness.config import make_config
from accl_harness.data.options import ImageMoves
from accl_harness.data.references import make_bank, soften
from accl_harness.errors import UserError
from accl_harness.experiments.single import run_training
from accl_harness.methods import METHODS
from accl_harness.networks import PatchGAN, UNet
from accl_harness.run import Run
from accl_harness.terms.entropy import mean_entropy
from accl_harness.terms.gated_crf import CRFOptions, GatedCRF, flat_cost
from accl_harness.terms.size_balance import SizeBalance
from accl_harness.terms.size_penalty import class_bounds, image_bounds
from accl_harness.terms.size_prior import SizePrior
from accl_harness.training import load_run, predict_probabilities
from accl_harness.training.curves import COLUMNS, Watch, columns_of
from accl_harness.training.initial import start_from
from accl_harness.training.loop import Trainer
from accl_harness.training.measures import measured
from accl_harness.training.ops import load_ops
from accl_harness.training.runtime import launch
from accl_harness.training.state import TrainingState
from accl_harness.training.validation import score_columns, validate
from small_runs import assert_same_end, classes_folder, measure, small_classes, small_config

INF = math.inf
OPS = load_ops("reference")


def classes_config(**options):
    return small_config(**{"classes": 4, "prior": (0.1, 0.05, 0.05), **options})


def trainer_of(data=None, ops="reference", validation=None, **options):
    config = classes_config(**options)
    return Trainer(config, data or small_classes(), validation, load_ops(ops), launch(config))


# Networks


def test_a_network_starts_at_the_prior_of_each_class():
    network = UNet(width=2, depth=2, prior=(0.1, 0.3), channels=3)
    with torch.no_grad():
        network.decoder[0][-1].weight.zero_()
        start = network(torch.zeros(1, 1, 8, 8)).softmax(1)[0, :, 0, 0]
    assert start.tolist() == pytest.approx([0.6, 0.1, 0.3])
    bias = UNet(width=2, depth=2, prior=0.3, channels=4).decoder[0][-1].bias
    assert bias.softmax(0).tolist() == pytest.approx([0.7, 0.1, 0.1, 0.1])
    with pytest.raises(UserError, match="wanted 3 numbers, one a foreground class"):
        UNet(width=2, depth=2, prior=(0.1, 0.3), channels=4)


def test_the_discriminator_sees_the_maps_of_the_objects():
    assert PatchGAN(width=2, maps=3).layers[0].in_channels == 4
    assert PatchGAN(width=2, maps=3, conditional=False).layers[0].in_channels == 3


# References


def test_references_become_maps_when_they_are_drawn():
    data = small_classes()
    bank = make_bank("paired", data)
    drawn = bank.draw(torch.tensor([2, 0]), torch.Generator().manual_seed(0))
    for image, maps in zip((2, 0), drawn, strict=True):
        for index in (1, 2, 3):
            assert torch.equal(maps[index - 1], (data.masks[image] == index).float())
    own = make_bank("own_weak", data).draw(torch.arange(4), torch.Generator())
    assert own.sum((2, 3)).tolist() == [[2, 2, 2]] * 3 + [[2, 2, 0]]


def test_each_map_is_softened_by_itself():
    maps = torch.rand(2, 3, 9, 9)
    whole = soften(maps, 1.0)
    for index in range(3):
        torch.testing.assert_close(whole[:, index : index + 1], soften(maps[:, [index]], 1.0))


# Sizes


def test_bounds_come_from_the_images_that_hold_the_class():
    masks = small_classes().masks
    counts = [[int((mask == index).sum()) for mask in masks] for index in (1, 2, 3)]
    assert counts[2][-1] == 0
    bounds = class_bounds(classes_config(), masks)
    wanted = [(0.9 * min(c), 1.1 * max(c)) for c in (counts[0], counts[1], counts[2][:-1])]
    assert bounds == [pytest.approx(pair) for pair in wanted]
    without = torch.where(masks == 3, 0, masks)
    assert class_bounds(classes_config(), without)[2] is None
    assert class_bounds(classes_config(bounds=(3, 9)), without) == [(3.0, 9.0)] * 3


def test_bounds_of_an_image_depend_on_what_its_labels_hold():
    labels = torch.full((3, 2, 2), 255, dtype=torch.uint8)
    labels[0] = torch.tensor([[1, 2], [255, 255]])
    labels[1, 0, 0] = 2  # class 1 may be there unmarked: no lower bound
    labels[2] = torch.tensor([[0, 0], [0, 2]])  # fully labelled: class 1 is not there
    found = image_bounds(classes_config(classes=3, prior=0.1), [(4.0, 9.0), None], labels)
    free = [-INF, INF]
    assert found.tolist() == [
        [free, [4.0, 9.0], free],
        [free, [-INF, 9.0], free],
        [free, [0.0, 0.0], free],
    ]
    binary = image_bounds(small_config(), [(4.0, 9.0)], labels)
    assert binary.tolist() == [[[4.0, 9.0]]] * 3


def test_the_penalty_of_a_step_follows_the_bounds_of_its_images():
    trainer = trainer_of(method="sccl", bounds=(20.0, 40.0), batch_size=4)
    batch = next(iter(trainer.data.epoch(1)))
    with torch.no_grad():
        sizes = trainer.step.generator(batch.images).softmax(1).sum((2, 3))
        expected, pairs = 0.0, 0
        for image, labels in enumerate(batch.labels):
            for index in (1, 2, 3):
                low, high = (20.0 if (labels == index).any() else -INF), 40.0
                size, pairs = sizes[image, index].item(), pairs + 1
                expected += max(low - size, 0.0) ** 2 + max(size - high, 0.0) ** 2
    trainer.step.generator.eval()
    head = OPS.segmentation_head(trainer.step.generator(batch.images), batch.labels, batch.bounds)
    trainer.step.generator.train()
    found = OPS.segmentation_head(trainer.step.generator(batch.images), batch.labels, batch.bounds)
    assert found.size_penalty.item() == pytest.approx(expected / pairs / 32**2, rel=1e-4)
    assert head.size_penalty.isfinite()


def test_size_prior_of_two_classes_by_hand():
    prior = SizePrior(0.5, (1.0, None), (0.5, None))
    sizes = torch.tensor([[math.e**2 - 1, 99.0], [math.e - 1, 99.0]])
    present = torch.tensor([[True, True], [False, True]])
    # Two deviations too large in one of four pairs; the class without masks costs nothing.
    assert prior.penalty(sizes, present).item() == pytest.approx(0.5 * 2**2 / 4)


def test_size_prior_and_balance_take_the_masks_that_hold_the_class():
    masks = small_classes().masks
    third = [int((mask == 3).sum()) for mask in masks[:-1]]

    def of(term, masks):
        return measure(term, masks, masks, classes=4, size_prior=1.0, size_balance=1.0)

    prior, balance = of(SizePrior, masks), of(SizeBalance, masks)
    assert prior.means[2] == pytest.approx(np.log1p(third).mean())
    assert prior.deviations[2] == max(np.log1p(third).std(), 0.1)
    assert balance.sizes[2] == pytest.approx(np.mean(third))
    without = torch.where(masks == 3, 0, masks)
    assert of(SizePrior, without).means[2] is None
    assert of(SizeBalance, without).sizes[2] is None


def test_size_balance_of_several_classes_by_hand():
    balance = SizeBalance(1.0, sizes=[10.0, 20.0, None], images=2)
    present = torch.tensor([[True, False, True]])
    predicted, sizes = torch.tensor([[8.0, 9.0, 9.0]]), torch.tensor([[5.0, 6.0, 7.0]])

    def alone(value):
        return value

    assert balance(predicted, sizes, present, alone).item() == 0
    assert balance.seen.tolist() == [9.0, 20.0, 1.0]  # one of two images was 2 too small
    assert balance(predicted, sizes, present, alone).item() == pytest.approx(-0.1 * 5 / 10 / 3)


# Gated CRF and entropy


def test_the_cost_of_outlines_counts_each_once():
    masks = small_classes().masks
    term = GatedCRF(1.0, 2, 3.0, 0.1)
    two = (masks > 0).to(torch.uint8)
    binary = flat_cost(term, two, OPS)
    labels = torch.where(masks == 3, 3, 2 * (masks > 0)).to(torch.uint8)  # the same outlines
    assert flat_cost(term, labels, OPS, 3) == pytest.approx(binary)
    assert flat_cost(term, masks, OPS, 3) > binary  # and those between the classes


def test_entropy_by_hand():
    half, sure = [0.0, 0.0], [0.0, 50.0]
    logits = torch.tensor([half, sure, [0.0, math.log(3)]]).T.reshape(1, 2, 1, 3)
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    every = torch.ones(1, 1, 3, dtype=torch.bool)
    wanted = (math.log(2) + quarter) / 3
    assert mean_entropy(logits, every).item() == pytest.approx(wanted, rel=1e-6)
    one = logits[:, 1:] - logits[:, :1]
    assert mean_entropy(one, every).item() == pytest.approx(wanted, rel=1e-6)
    some = torch.tensor([[[True, False, False]]])
    assert mean_entropy(logits, some).item() == pytest.approx(math.log(2))
    assert mean_entropy(logits, ~every).item() == 0
    sharp = torch.full((1, 3, 1, 1), -1e4).index_fill_(1, torch.tensor([1]), 1e4).requires_grad_()
    mean_entropy(sharp, torch.ones(1, 1, 1, dtype=torch.bool)).backward()
    assert sharp.grad.eq(0).all()


@pytest.mark.parametrize("classes", [None, 4])
def test_entropy_is_of_the_unlabelled_pixels_and_part_of_the_loss(classes):
    from small_runs import small_dataset

    data = small_classes() if classes else small_dataset()
    options = {"method": "partial_ce", "prior": 0.2, "batch_size": 4, "classes": classes}
    losses = {}
    for weight in (0.0, 0.5):
        trainer = trainer_of(data, entropy=weight, **options)
        losses[weight] = trainer.train_epoch(lambda: None)
    entropy = losses[0.5]["entropy"]
    assert losses[0.0]["entropy"] is None
    assert 0 < entropy < math.log(classes or 2)
    wanted = losses[0.5]["partial_ce"] + 0.5 * entropy
    assert losses[0.5]["loss_g"] == pytest.approx(wanted, rel=1e-5)
    assert losses[0.0]["loss_g"] == losses[0.0]["partial_ce"] == losses[0.5]["partial_ce"]


# Whole trainings

EVERYTHING = {
    "method": "accl_crf",
    "size_weight": 0.01,
    "entropy": 0.1,
    "batch_size": 2,
    "image_moves": ImageMoves(shift=0.1, flip=True, rotation=20, scale=1.1, grey=0.1),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_several_classes(method):
    row = trainer_of(method=method, size_prior=0.1).train_epoch(lambda: None)
    assert all(math.isfinite(value) for value in row.values() if value is not None)
    assert row["size_prior"] > 0


def test_two_classes_learn_what_one_logit_learns():
    """A softmax over two is a sigmoid of the difference; both find the bright squares."""
    from small_runs import small_dataset

    found = {}
    for classes in (None, 2):
        data = small_dataset(8)
        data.classes = classes
        options = {"method": "fs_ce", "epochs": 25, "width": 4, "lr": 2e-3, "prior": 0.1}
        trainer = trainer_of(data, classes=classes, **options)
        for _ in range(25):
            row = trainer.train_epoch(lambda: None)
        found[classes] = row["dsc"]
    assert min(found.values()) > 0.85


def test_four_classes_are_learned():
    trainer = trainer_of(method="fs_ce", epochs=40, width=4, lr=2e-3, norm="instance")
    for _ in range(40):
        row = trainer.train_epoch(lambda: None)
    assert min(row[f"dsc_{index}"] for index in (1, 2)) > 0.8
    assert row["dsc"] == pytest.approx(sum(row[f"dsc_{index}"] for index in (1, 2, 3)) / 3)


def test_the_fused_ops_give_what_the_reference_gives():
    rows = [
        trainer_of(ops=ops, precision="64", norm="instance", **EVERYTHING).train_epoch(lambda: None)
        for ops in ("reference", "fused")
    ]
    for name, value in rows[0].items():
        if name != "seconds":
            assert rows[1][name] == pytest.approx(value, rel=1e-9), name


def test_the_statistics_of_a_step_are_those_of_its_predictions():
    trainer = trainer_of(method="partial_ce", batch_size=4, dropout=0.0)
    batch = next(iter(trainer.data.epoch(1)))
    with torch.no_grad():
        chosen = trainer.step.generator(batch.images).argmax(1)
    trainer.step(batch)
    counts = trainer.step.sums[-9:].view(3, 3)
    for index in (1, 2, 3):
        found, true = chosen == index, batch.masks == index
        assert counts[0, index - 1] == found.sum()
        assert counts[1, index - 1] == true.sum()
        total = found.sum((1, 2)) + true.sum((1, 2))
        dsc = torch.where(total > 0, 2 * (found & true).sum((1, 2)) / total, 1.0)
        assert counts[2, index - 1].item() == pytest.approx(dsc.sum().item(), rel=1e-6)


def test_validation_scores_volumes():
    data = small_classes()
    data.volumes = ["a", "a", "b", "b"]
    trainer = trainer_of(method="partial_ce", validation=data)
    from accl_harness.training.inference import TrainedRun

    trained = TrainedRun(trainer.config, trainer.state.generator, torch.device("cpu"), 0)
    chosen = predict_probabilities(trained, data.images).argmax(1)
    predicted, truth, dsc = validate(trained, data)
    for index in (1, 2, 3):
        found, true = chosen == index, data.masks == index
        assert (predicted[index - 1], truth[index - 1]) == (found.sum(), true.sum())
        scores = []
        for part in (slice(0, 2), slice(2, 4)):
            total = found[part].sum() + true[part].sum()
            overlap = (found[part] & true[part]).sum()
            scores.append((2 * overlap / total).item() if total else 1.0)
        assert dsc[index - 1] == pytest.approx(sum(scores) / 2, rel=1e-6)


def test_columns_of_each_class():
    assert columns_of(small_config()) == COLUMNS
    assert columns_of(classes_config(entropy=0.1))[len(COLUMNS) :] == (
        *("entropy", "size_ratio_1", "size_ratio_2", "size_ratio_3", "dsc_1", "dsc_2", "dsc_3"),
    )
    row = score_columns([2, 9, 0], [4, 3, 0], [0.5, 0.25, 1.0], 4)
    assert row["size_ratio"] == 11 / 7
    assert row["dsc"] == pytest.approx(1.75 / 3)
    assert [row[f"size_ratio_{index}"] for index in (1, 2, 3)] == [0.5, 3.0, None]


def test_each_class_is_watched():
    watch = Watch(4, classes=3)
    row = {"epoch": 2, "loss_d": None, "loss_g": 1.0, "size_ratio": 1.0}
    found = watch.check({**row, "size_ratio_1": 4.0, "size_ratio_2": 0.05})
    assert [text.split(":")[0] for text in found] == ["class 1 floods", "class 2 vanishes"]


def test_what_was_measured_is_told_for_each_class():
    trainer = trainer_of(method="accl_crf", prior=None, size_weight=0.01)
    found = trainer.measured
    shares = [(small_classes().masks == index).float().mean().item() for index in (1, 2, 3)]
    assert found["prior"] == pytest.approx(shares)
    assert list(found["log_size"]) == list(found["mean_size"]) == ["1", "2", "3"]
    assert list(trainer.bounds) == ["1", "2", "3"]
    assert measured(classes_config(prior=None), None).prior == (0.02,) * 3


def test_a_run_goes_on_as_if_it_had_not_stopped(tmp_path):
    options = {"data": str(classes_folder(tmp_path / "data")), "epochs": 2, **EVERYTHING}
    config = classes_config(**options, crf=CRFOptions(weight=0.1))
    whole = run_training(config.replace(out=str(tmp_path / "whole")), quiet=True)
    from accl_harness.training.session import training_session

    part = config.replace(out=str(tmp_path / "part"))

    class Stop(Exception):
        pass

    def stop(row):
        raise Stop

    with pytest.raises(Stop), training_session(part, resume=False, quiet=True) as session:
        session.train(stop)
    run_training(part, resume=True, quiet=True)
    assert_same_end(tmp_path / "part", whole)
    assert Run(whole).config() == config.replace(out=str(whole))
    trained = load_run(whole)
    assert predict_probabilities(trained, small_classes().images).shape == (4, 4, 32, 32)
    three = config.replace(classes=3, prior=0.1)
    state = TrainingState.build(three, torch.device("cpu"), None)
    with pytest.raises(UserError, match=r"another form \(classes 4 there, 3 here\)"):
        start_from(str(whole), three, state)


def test_more_than_two_classes_take_the_preset_for_scribbles():
    assert make_config(classes=4).preset == "scribble"
    assert make_config(classes=4).batch_size > 1
    assert make_config(classes=2).preset == make_config().preset == "small"
    assert make_config("small", classes=4).batch_size == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prior": (0.1, 0.2)}, r"prior must be one number or 3"),
        ({"prior": (0.5, 0.3, 0.2)}, "prior must be between 0 and 1"),
        ({"bounds": "paper_lv"}, "bounds must be training, none or two numbers"),
        ({"entropy": -1.0}, "entropy must be 0 or more"),
    ],
)
def test_options_that_several_classes_do_not_have(options, words):
    with pytest.raises(UserError, match=words):
        classes_config(**options).check()
