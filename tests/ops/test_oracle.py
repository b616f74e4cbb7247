"""The comparison that the other tests rest on can fail."""

import math

import pytest
import torch

from ops.oracle import assert_near, check, make_logits, ulps


def near(got, wanted, dtype):
    assert_near(torch.tensor(got, dtype=dtype), torch.tensor(wanted, dtype=torch.float64))


@pytest.mark.parametrize(
    ("dtype", "error"),
    [
        (torch.float64, 1e-12),
        (torch.float32, 1e-5),
        (torch.bfloat16, 2**-8),
        (torch.float16, 2**-11),
    ],
)
def test_errors_around_the_tolerance(dtype, error):
    near([4.0, 4 * (1 + error / 2)], [4.0, 4.0], dtype)
    with pytest.raises(AssertionError, match="1 of 2 differ, first at"):
        near([4.0, 4 * (1 + 5 * error)], [4.0, 4.0], dtype)


@pytest.mark.parametrize(
    ("got", "wanted"), [(math.nan, 1.0), (1.0, math.nan), (math.inf, -math.inf), (1.0, math.inf)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_is_not_finite_must_agree(got, wanted, dtype):
    near([math.nan, math.inf], [math.nan, math.inf], dtype)
    with pytest.raises(AssertionError, match="1 of 2 differ"):
        near([2.0, got], [2.0, wanted], dtype)


def test_ulps():
    a = torch.tensor([1.0, -1.0, 0.0, 6e-8], dtype=torch.float16)
    b = torch.tensor([1 + 2**-10, -1 - 2**-9, -0.0, -6e-8], dtype=torch.float16)
    assert ulps(a, b).tolist() == [1, 2, 0, 2]


def test_a_shape_of_its_own_is_refused():
    with pytest.raises(AssertionError, match="shape"):
        near([[1.0]], [1.0], torch.float32)


def test_check_sees_another_loss(monkeypatch):
    monkeypatch.setattr("accl_ext.accl_loss", lambda x, **o: 1.0001 * x.square().mean())
    with pytest.raises(AssertionError, match="output 0"):
        check("accl_loss", make_logits(1, 1), target=0.0)


def test_check_sees_another_gradient(monkeypatch):
    from accl_ext.reference import accl_loss

    monkeypatch.setattr("accl_ext.accl_loss", lambda x, **o: accl_loss((x + x.detach()) / 2, **o))
    with pytest.raises(AssertionError, match="gradient"):
        check("accl_loss", make_logits(1, 1))
