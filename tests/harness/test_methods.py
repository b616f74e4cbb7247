"""Seven methods are those of the paper's table, in labels, terms and reference masks."""

import pytest
import torch
from accl_harness.errors import UserError
from accl_harness.methods import METHODS
from accl_harness.terms.data_term import data_term_labels
from small_runs import small_config

TABLE = {
    # method: data term, alpha, weight of the size penalty, reference masks where ACCL is on
    "weak_ce": ("weak_or_background", 0, 0, None),
    "partial_ce": ("weak", 0, 0, None),
    "sccl": ("weak", 0, 0.01, None),
    "partial_accl": ("weak", 1e-3, 0, "own_weak"),
    "unpaired_accl": ("weak", 1e-2, 0, "unpaired"),
    "paired_accl": ("weak", 1e-2, 0, "paired"),
    "fs_ce": ("full", 0, 0, None),
}


def test_all_seven_are_there_in_the_order_of_the_table():
    assert [name for name, row in METHODS.items() if row.in_paper] == list(TABLE)
    assert list(METHODS)[:7] == list(TABLE)


def test_two_go_beyond_the_table():
    sccl, accl = (small_config(method=method) for method in ("sccl_crf", "accl_crf"))
    assert (sccl.accl_weight, sccl.weight("size_penalty"), sccl.weight("size_prior")) == (
        0,
        0.01,
        0,
    )
    assert (accl.accl_weight, accl.weight("size_penalty"), accl.weight("size_prior")) == (
        0.3,
        0,
        0.1,
    )
    assert (accl.weight("size_balance"), sccl.weight("size_balance")) == (3.0, 0)
    assert (accl.softening, accl.noise, accl.sees_image) == (1.0, 0.2, False)
    assert accl.reference_kind == "unpaired"
    assert sccl.weight("crf") is None is accl.weight("crf")
    assert accl.replace(alpha_scale=20.0).accl_weight == 0.3


@pytest.mark.parametrize(
    ("method", "classes", "alpha"),
    [
        ("accl_crf", None, 0.3),
        ("accl_crf", 2, 0.3),  # two logits, but one object
        ("accl_crf", 3, 0.05),
        ("accl_crf", 4, 0.05),
        ("unpaired_accl", 4, 1e-2),
        ("sccl_crf", 4, 0),
    ],
)
def test_weight_of_accl_with_several_classes(method, classes, alpha):
    assert small_config(method=method, classes=classes).accl_weight == alpha
    assert small_config(method=method, classes=classes, alpha=0.7).accl_weight == 0.7


@pytest.mark.parametrize("method", TABLE)
def test_terms(method):
    config = small_config(method=method)
    data_term, alpha, size_weight, kind = TABLE[method]
    assert METHODS[method].data_term == data_term
    assert config.accl_weight == alpha
    assert config.weight("size_penalty") == size_weight
    if kind is not None:
        assert config.reference_kind == kind


def test_all_terms_can_be_on_together():
    config = small_config(method="sccl", alpha=0.05)
    assert (config.accl_weight, config.weight("size_penalty")) == (0.05, 0.01)
    assert config.reference_kind == "unpaired"
    config = small_config(method="unpaired_accl", size_weight=0.01)
    assert (config.accl_weight, config.weight("size_penalty")) == (0.01, 0.01)


def test_labels_of_the_data_terms():
    masks = torch.tensor([[[0, 1, 1, 0]]], dtype=torch.uint8)
    weak = torch.tensor([[[255, 1, 255, 0]]], dtype=torch.uint8)
    assert data_term_labels("weak", weak, masks).tolist() == [[[255, 1, 255, 0]]]
    assert data_term_labels("weak_or_background", weak, masks).tolist() == [[[0, 1, 0, 0]]]
    assert data_term_labels("full", weak, masks).tolist() == [[[0, 1, 1, 0]]]


def test_full_supervision_without_masks_is_refused():
    with pytest.raises(UserError, match="full supervision needs masks"):
        data_term_labels("full", torch.zeros(1, 2, 2, dtype=torch.uint8), None)
