"""One typed config: presets, bounds, checks, and the YAML file that a run keeps."""

import dataclasses

import pytest
import torch
from accl_harness.config import (
    PRESETS,
    TrainConfig,
    make_config,
    refuse_idle_options,
)
from accl_harness.config_file import load_config, save_config
from accl_harness.data.options import MaskBankOptions, ReferenceOptions, WeakOptions
from accl_harness.errors import UserError
from accl_harness.networks.patchgan import PatchGAN
from accl_harness.terms.data_term import DataTerm
from accl_harness.terms.size_penalty import size_bounds
from small_runs import small_config


def test_preset_paper_is_the_papers_protocol():
    config = make_config("paper")
    assert (config.method, config.size) == ("unpaired_accl", 256)
    assert (config.width, config.depth) == (64, 8)
    assert (config.epochs, config.batch_size, config.lr) == (200, 1, 2e-4)
    assert (config.betas, config.prior, config.dropout) == ((0.5, 0.999), 0.5, 0.5)
    assert (config.norm, config.test_norm, config.criterion) == ("batch", "image", "lsgan")


def test_preset_small_is_the_default():
    config = make_config()
    assert (config.preset, config.method) == ("small", "accl_crf")
    assert (config.size, config.width, config.epochs) == (128, 16, 120)


def test_options_win_over_the_preset():
    assert make_config("paper", epochs=3).epochs == 3


def test_unknown_preset_is_refused():
    with pytest.raises(
        UserError, match="preset must be one of small, paper, demo, scribble, got 'tiny'"
    ):
        make_config("tiny")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_pass_their_own_check(preset):
    make_config(preset).check()


def test_bounds_of_the_training_masks_leave_out_empty_ones():
    assert size_bounds(small_config(), [0, 100, 40]) == pytest.approx((36, 110))
    assert size_bounds(small_config(), [0, 0]) is None


def test_bounds_of_the_paper_are_scaled_from_256_pixels():
    assert size_bounds(small_config(bounds="paper_cup", size=128), []) == (127.0, 986.75)
    assert size_bounds(small_config(bounds="paper_lv", size=256), []) == (23, 2333)


def test_bounds_given_as_numbers_are_at_the_working_size():
    assert size_bounds(small_config(bounds=(3, 9)), [1]) == (3.0, 9.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "method must be one of weak_ce, .*, got 'magic'"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": -1}, "batch_size must be at least 1, got -1"),
        ({"alpha": -0.1}, "alpha must be 0 or more, got -0.1"),
        ({"alpha": float("nan")}, "alpha must be 0 or more, got nan"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"betas": (0.5, 1.0)}, r"betas must be from 0 to below 1, got \(0.5, 1.0\)"),
        ({"method": "paired_accl", "size": 23}, "size must be at least 24 with ACCL.*, got 23"),
        (
            {
                "method": "unpaired_accl",
                "references": ReferenceOptions(kind="paired", folder="painted"),
            },
            "references.folder goes with references.kind folder, augmented or auto, got paired",
        ),
        ({"lr": 0.0}, "lr must be above 0, got 0.0"),
        ({"prior": 1.0}, "prior must be between 0 and 1"),
        ({"dropout": 1.0}, "dropout must be 0 to below 1"),
        ({"bounds": (9.0, 3.0)}, "bounds must be a lower and an upper size, got .9.0, 3.0."),
        ({"method": "sccl", "bounds": "none"}, "sccl needs size bounds"),
    ],
)
def test_values_no_training_can_use_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        small_config(**options).check()


def test_the_smallest_size_with_accl_has_a_score_and_the_one_below_none():
    discriminator = PatchGAN(width=2, conditional=False)
    assert discriminator(None, torch.zeros(2, 1, 24, 24)).shape == (2, 1, 1, 1)
    with pytest.raises(RuntimeError):
        discriminator(None, torch.zeros(2, 1, 23, 23))
    small_config(method="unpaired_accl", size=24).check()
    small_config(method="sccl", size=16).check()


def test_a_named_folder_of_references_is_used():
    named = ReferenceOptions(folder="painted")
    assert small_config(method="unpaired_accl", references=named).reference_kind == "folder"
    assert small_config(method="accl_crf", references=named).reference_kind == "auto"
    as_they_are = ReferenceOptions(kind="folder", folder="masks")
    assert small_config(method="accl_crf", references=as_they_are).reference_kind == "folder"
    augmented = ReferenceOptions(kind="augmented", folder="painted")
    assert small_config(references=augmented).reference_kind == "augmented"
    assert small_config(method="partial_accl").reference_kind == "own_weak"


@pytest.mark.parametrize(
    "options",
    [
        {"references": ReferenceOptions(painted=3)},
        {"alpha_scale": 2.0},
        {"conditional": False},
        {"criterion": "hinge"},
        {"discriminator_scale": 0.5},
    ],
)
def test_options_of_accl_without_accl_are_refused(options):
    (name,) = options
    with pytest.raises(UserError, match=f"{name} counts with ACCL alone, and method sccl has none"):
        refuse_idle_options(make_config(method="sccl", **options))
    refuse_idle_options(make_config(method="unpaired_accl", **options))
    refuse_idle_options(make_config(method="sccl", alpha=1e-2, **options))


def test_yaml_gives_back_every_option(tmp_path):
    config = small_config(
        method="sccl",
        bounds=(1.5, 20.0),
        lr=1e-5,
        alpha=0.02,
        weak=WeakOptions(strategy="disc", radius=3.5),
    )
    config = config.replace(
        references=dataclasses.replace(
            config.references, kind="augmented", mask_bank=MaskBankOptions(shift=0.1)
        )
    )
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert set(dataclasses.asdict(config)) == {f.name for f in dataclasses.fields(TrainConfig)}


def test_missing_or_foreign_yaml_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is no run folder: it has no config\.yaml"):
        load_config(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("epochs: 3\n")
    with pytest.raises(UserError, match="is not a config of this version"):
        load_config(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("method", "classes", "given", "wanted"),
    [
        ("accl_crf", None, None, True),
        ("accl_crf", 2, None, True),
        ("accl_crf", 4, None, False),
        ("accl_crf", 4, True, True),
        ("accl_crf", None, False, False),
        ("sccl_crf", None, None, True),
        ("fs_ce", None, None, False),
        ("partial_ce", None, None, False),
    ],
)
def test_which_methods_balance_object_and_background(method, classes, given, wanted):
    config = make_config("small", method=method, classes=classes, class_balance=given)
    assert DataTerm.balances_classes(config) is wanted
