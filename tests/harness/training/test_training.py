"""The training step against a plainly written one, its order of updates, and whole runs."""

import csv
import json
import sys
from pathlib import Path

import pytest
import torch
from accl_harness.errors import UserError
from accl_harness.experiments.single import run_training
from accl_harness.networks import build_discriminator, build_generator
from accl_harness.training import load_run, predict_probabilities
from accl_harness.training.batches import TrainingData
from accl_harness.training.curves import COLUMNS, Watch
from accl_harness.training.loop import Trainer
from accl_harness.training.ops import load_ops
from accl_harness.training.runtime import launch
from accl_harness.training.step import STATISTICS
from small_runs import column, phantom_folder, rows_without_seconds, small_config, small_dataset

sys.path.append(str(Path(__file__).resolve().parents[3] / "benchmarks"))  # after tests/ops
from plain_train_step import PlainStep


def small_trainer(**options) -> Trainer:
    config = small_config(**options)
    return Trainer(config, small_dataset(), None, load_ops("reference"), launch(config))


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
        size_weight=config.penalty_weight,
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
    total = dict(zip(STATISTICS, step.sums.tolist(), strict=True))
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
    assert step.sums[STATISTICS.index("accl")].item() == pytest.approx(expected, rel=1e-5)


def test_statistics_count_pixels_and_overlap():
    trainer = small_trainer(method="fs_ce", batch_size=4)
    last = trainer.step.generator.decoder[0][-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, 5.0)
    trainer.step.forget()
    batch = next(iter(trainer.data.epoch(1)))
    trainer.step(batch)
    found = dict(zip(STATISTICS, trainer.step.sums.tolist(), strict=True))
    pixels, truth = 32 * 32, batch.masks.sum((1, 2))
    assert found["predicted"] == 4 * pixels
    assert found["truth"] == truth.sum()
    expected = (2 * truth / (pixels + truth)).sum().item()
    assert found["dsc"] == pytest.approx(expected)


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


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(phantom_folder(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    config = small_config(data=data, out=str(out), method="unpaired_accl", tensorboard=True)
    return run_training(config, quiet=True)


def test_run_folder_holds_what_it_should(finished):
    names = {path.name for path in finished.iterdir()}
    assert {
        "config.yaml",
        "data.json",
        "metrics.csv",
        "metrics.json",
        "checkpoints",
        "figures",
        "predictions",
    } <= names
    assert len(list((finished / "predictions").iterdir())) == 2
    assert (finished / "figures" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert any((finished / "tensorboard").iterdir())
    with (finished / "metrics.csv").open() as file:
        assert tuple(next(csv.reader(file))) == COLUMNS
    assert column(finished, "epoch") == ["1", "2", "3"]
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["method"] == "unpaired_accl"
    assert metrics["backend"] == "reference"
    assert 0 < metrics["annotation_ratio"] < 1
    assert len(metrics["bounds"]) == 2
    assert metrics["measured"]["prior"] == 0.02
    assert metrics["measured"]["crf"] is None
    assert metrics["seconds"] > 0


def test_columns_without_a_meaning_are_empty(data, tmp_path):
    config = small_config(data=data, out=str(tmp_path / "run"), method="fs_ce", epochs=1)
    run = run_training(config, quiet=True)
    for name in ("accl", "loss_d", "d_real", "d_fake", "size_penalty"):
        assert column(run, name) == [""]
    assert float(column(run, "partial_ce")[0]) > 0
    assert json.loads((run / "metrics.json").read_text())["annotation_ratio"] == 1


def test_same_seed_same_run_another_seed_another(data, finished, tmp_path):
    config = small_config(data=data, out=str(tmp_path / "again"), method="unpaired_accl")
    assert rows_without_seconds(run_training(config, quiet=True)) == rows_without_seconds(finished)
    other = config.replace(out=str(tmp_path / "other"), seed=1)
    assert rows_without_seconds(run_training(other, quiet=True)) != rows_without_seconds(finished)


def test_trained_network_reads_back_and_predicts_each_image_alone(finished):
    run = load_run(finished)
    assert run.epoch == 3
    images = small_dataset(3).images
    together = predict_probabilities(run, images)
    assert together.shape == (3, 1, 32, 32)
    assert together.dtype == torch.float32
    for i in range(3):
        torch.testing.assert_close(predict_probabilities(run, images[i : i + 1])[0], together[i])


def test_validation_images_are_not_trained_on(data, tmp_path):
    config = small_config(data=data, out=str(tmp_path / "run"), method="fs_ce", validation=0.4)
    trainer = Trainer(
        config, *_split(small_dataset(5), config), load_ops("reference"), launch(config)
    )
    assert len(trainer.data) == 3
    row = trainer.train_epoch(lambda: None)
    assert 0 <= row["dsc"] <= 1


def _split(dataset, config):
    from accl_harness.data.dataset import split_validation

    return split_validation(dataset, config.validation, config.seed)


def test_training_learns_the_squares():
    trainer = small_trainer(method="fs_ce", width=4, epochs=20, lr=2e-3, prior=0.2)
    rows = [trainer.train_epoch(lambda: None) for _ in range(20)]
    assert rows[-1]["loss_g"] < 0.4 * rows[0]["loss_g"]
    assert rows[-1]["dsc"] > 0.7


def test_fused_ops_that_are_not_there_are_a_clear_error(monkeypatch):
    import accl_ext

    monkeypatch.setattr(accl_ext, "build_info", lambda: {"loaded": False, "reason": "not built"})
    with pytest.raises(UserError, match="not built\nOr give --backend reference"):
        load_ops("fused")


@pytest.mark.parametrize(
    ("changes", "epoch", "word"),
    [
        ({"loss_d": 0.009}, 1, "discriminator's loss fell below"),
        ({"size_ratio": 3.5}, 5, "foreground floods"),
        ({"size_ratio": 0.0}, 5, "foreground vanishes"),
        ({"loss_g": float("nan")}, 1, "loss is not finite"),
    ],
)
def test_warnings_come_once_each(changes, epoch, word):
    row = {"epoch": epoch, "loss_g": 1.0, "loss_d": 0.5, "size_ratio": 1.0}
    watch = Watch(epochs=8)
    assert watch.check(row) == []
    (warning,) = watch.check({**row, **changes})
    assert word in warning
    assert watch.check({**row, **changes}) == []


@pytest.mark.parametrize(
    ("weights", "ratio", "advice"),
    [
        ({}, 4.0, "; lower prior"),
        ({"accl": True}, 4.0, "; lower prior, or raise alpha"),
        ({"accl": True, "size": True}, 4.0, "; lower prior, or raise alpha or the size weight"),
        ({"size": True}, 0.0, "; raise prior"),
        ({"accl": True}, 0.0, "; raise prior, or lower alpha"),
    ],
)
def test_advice_names_what_the_method_has(weights, ratio, advice):
    row = {"epoch": 8, "loss_g": 1.0, "loss_d": None, "size_ratio": ratio}
    (warning,) = Watch(epochs=8, **weights).check(row)
    assert warning.endswith(advice)


def test_foreground_is_not_judged_in_the_first_quarter():
    row = {"epoch": 2, "loss_g": 1.0, "loss_d": None, "size_ratio": 0.0}
    assert Watch(epochs=8).check(row) == []


def test_no_labelled_pixel_is_a_warning(data):
    dataset = small_dataset()
    dataset.weak_labels.fill_(255)
    config = small_config(method="partial_ce")
    trainer = Trainer(config, dataset, None, load_ops("reference"), launch(config))
    assert trainer.data_warnings == ["no pixel is labelled: the data term is 0"]
    assert trainer.train_epoch(lambda: None)["partial_ce"] == 0
