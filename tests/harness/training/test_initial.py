"""A new training that starts from the weights of another run."""

import shutil

import pytest
import torch
from accl_harness.config import changed_options
from accl_harness.errors import UserError
from accl_harness.experiments.single import run_training
from accl_harness.run import Run
from accl_harness.training.initial import start_from
from accl_harness.training.loop import Trainer
from accl_harness.training.ops import load_ops
from accl_harness.training.runtime import launch
from small_runs import column, phantom_folder, small_config, small_dataset

METHOD = {"method": "unpaired_accl", "epochs": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(phantom_folder(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def first(data, tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "first"
    return Run(run_training(small_config(data=data, out=str(out), **METHOD), quiet=True))


def trainer_of(config):
    return Trainer(config, small_dataset(), None, load_ops("reference"), launch(config))


def test_both_networks_begin_with_the_other_runs_weights_and_fresh_optimisers(first):
    config = small_config(method="unpaired_accl", seed=7, prior=0.5)
    state = trainer_of(config).state
    assert start_from(str(first.folder), config, state) == []
    known = first.load_checkpoint()
    for network in ("generator", "discriminator"):
        for name, weight in getattr(state, network).state_dict().items():
            assert torch.equal(weight, known[network][name]), f"{network} {name}"
    assert state.optimizer_g.state_dict()["state"] == {}
    assert state.optimizer_d.state_dict()["state"] == {}


def test_more_epochs_for_a_finished_run(data, first, tmp_path):
    before = {p: p.read_bytes() for p in first.folder.rglob("*") if p.is_file()}
    config = small_config(data=data, out=str(tmp_path / "second"), **METHOD)
    plain = run_training(config.replace(out=str(tmp_path / "plain")), quiet=True)
    second = run_training(config.replace(init=str(first.folder)), quiet=True)
    assert column(second, "epoch") == ["1", "2"]
    # The seed is the same, so a fresh start would have repeated the first run.
    assert column(plain, "loss_g") == column(first.folder, "loss_g")
    assert column(second, "loss_g") != column(plain, "loss_g")
    assert {p: p.read_bytes() for p in first.folder.rglob("*") if p.is_file()} == before


def test_resumed_it_needs_the_other_run_no_more(data, first, tmp_path):
    source = shutil.copytree(first.folder, tmp_path / "source")
    config = small_config(data=data, init=str(source), **METHOD)
    whole = run_training(config.replace(out=str(tmp_path / "whole")), quiet=True)

    class Stop(Exception):
        pass

    def stop(row):
        raise Stop

    config = config.replace(out=str(tmp_path / "run"))
    with pytest.raises(Stop):
        run_training(config, quiet=True, on_epoch=stop)
    shutil.rmtree(source)
    run = run_training(config, quiet=True, resume=True)
    ours, theirs = Run(run).load_checkpoint(), Run(whole).load_checkpoint()
    for name, weight in theirs["generator"].items():
        assert torch.equal(ours["generator"][name], weight), name


def test_a_run_of_another_start_is_another_run(first):
    config = small_config()
    assert set(changed_options(config, config.replace(init=str(first.folder)))) == {"init"}


def test_a_run_without_a_discriminator_gives_its_generator_and_says_so(data, tmp_path):
    config = small_config(data=data, out=str(tmp_path / "run"), method="fs_ce", epochs=1)
    run = Run(run_training(config, quiet=True))
    config = small_config(method="unpaired_accl")
    trainer = trainer_of(config)
    fresh = {k: v.clone() for k, v in trainer.state.discriminator.state_dict().items()}
    (note,) = start_from(str(run.folder), config, trainer.state)
    assert "has no discriminator" in note
    assert all(
        torch.equal(fresh[k], v) for k, v in trainer.state.discriminator.state_dict().items()
    )
    known = run.load_checkpoint()["generator"]
    assert all(torch.equal(known[k], v) for k, v in trainer.state.generator.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 4}, r"another form \(width 2 there, 4 here\)"),
        ({"size": 64}, r"another form \(size 32 there, 64 here\)"),
        ({"norm": "none"}, r"another form \(norm batch there, none here\)"),
        ({"norm": "instance"}, r"another form \(norm batch there, instance here\)"),
        ({"conditional": False}, r"another form \(conditional True there, False here\)"),
    ],
)
def test_networks_of_another_form_are_refused_by_the_option(first, options, message):
    config = small_config(**{"method": "unpaired_accl", **options})
    with pytest.raises(UserError, match=message):
        start_from(str(first.folder), config, trainer_of(config).state)


def test_what_is_no_run_is_named_before_anything_is_written(data, first, tmp_path):
    config = small_config(data=data, out=str(tmp_path / "run"), init=str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"none is no run folder: it has no config\.yaml"):
        run_training(config, quiet=True)
    assert not (tmp_path / "run").exists()
    (tmp_path / "begun").mkdir()
    shutil.copy(first.config_file, tmp_path / "begun")
    with pytest.raises(UserError, match="begun has no checkpoint yet"):
        run_training(config.replace(init=str(tmp_path / "begun")), quiet=True)
    with pytest.raises(UserError, match="is the run itself, which goes on with --resume"):
        run_training(config.replace(init=str(tmp_path / "run")), quiet=True)
