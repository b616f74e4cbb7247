"""Bad input: every row of the table of bad calls runs on the fused op, on meta tensors and on the
reference, which must raise the same exception with the same words."""

import math
import re

import pytest
import torch

import accl_ext
from accl_ext import reference
from ops.bad_calls import ROWS, T


def resolve(value, device: str, other: str):
    if isinstance(value, dict):
        return {name: resolve(x, device, other) for name, x in value.items()}
    return value.make(device, other) if isinstance(value, T) else value


@pytest.mark.parametrize("where", ["fused", "meta", "reference", "reference-meta"])
@pytest.mark.parametrize(
    ("op", "arguments", "options", "error", "message"),
    ROWS,
    ids=[f"{row[0]}-{row[-1]}" for row in ROWS],
)
def test_message(where, op, arguments, options, error, message):
    api = reference if where.startswith("reference") else accl_ext
    devices = ("meta", "cpu") if where.endswith("meta") else ("cpu", "meta")
    arguments = [resolve(x, *devices) for x in arguments]
    options = {name: resolve(x, *devices) for name, x in options.items()}
    with pytest.raises(error) as raised:
        getattr(api, op)(*arguments, **options)
    assert type(raised.value) is error
    message = message.replace("{device}", devices[0]).replace("{other}", devices[1])
    assert str(raised.value) == message


# ---------------------------------------------------------------------------------------------
# Values of labels: looked at on CPU alone

LABEL_VALUES = [
    (1, torch.uint8, 2, 255, "labels must be 0, 1 or ignore_index (255), got 2"),
    (1, torch.uint8, 254, 255, "labels must be 0, 1 or ignore_index (255), got 254"),
    (1, torch.uint8, 255, 0, "labels must be 0, 1 or ignore_index (0), got 255"),
    (1, torch.uint8, 255, -100, "labels must be 0, 1 or ignore_index (-100), got 255"),
    (1, torch.int8, -1, 255, "labels must be 0, 1 or ignore_index (255), got -1"),
    (2, torch.int16, 256, 255, "labels must be 0, 1 or ignore_index (255), got 256"),
    (3, torch.int32, 3, 255, "labels must be 0 to 2 or ignore_index (255), got 3"),
    (3, torch.int16, -32768, 255, "labels must be 0 to 2 or ignore_index (255), got -32768"),
    (5, torch.int64, 2**32, 255, f"labels must be 0 to 4 or ignore_index (255), got {2**32}"),
    (5, torch.int64, -(2**32), -1, f"labels must be 0 to 4 or ignore_index (-1), got {-(2**32)}"),
    (1, torch.int64, -(2**63), 255, f"labels must be 0, 1 or ignore_index (255), got {-(2**63)}"),
]  # fmt: skip


@pytest.mark.parametrize("api", [accl_ext, reference], ids=["fused", "reference"])
@pytest.mark.parametrize("at", [0, 15, 16, 1023, 1024, 8192, 20_000])
@pytest.mark.parametrize(
    ("classes", "dtype", "value", "ignore_index", "message"), LABEL_VALUES, ids=str
)
def test_label_value(api, at, classes, dtype, value, ignore_index, message):
    z = torch.zeros(2, classes, 20_001, requires_grad=True)
    y = torch.ones(2, 20_001, dtype=dtype)
    y[1, at] = value
    for call in (
        lambda: api.partial_cross_entropy(z, y, ignore_index=ignore_index),
        lambda: api.partial_cross_entropy(z, y, ignore_index=ignore_index, reduction="none"),
        lambda: api.segmentation_head(
            z.requires_grad_(), y.unsqueeze(1), ignore_index=ignore_index
        ),
        lambda: api.validate_labels(y, classes, ignore_index=ignore_index),
    ):
        with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
            call()


@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_bad_label_is_named(threads):
    torch.set_num_threads(threads)
    y = torch.zeros(3, 30_000, dtype=torch.int64)
    y[0, 29_999], y[1, 5], y[2, 0] = 7, 8, 9
    for _ in range(10):
        with pytest.raises(ValueError, match=r"got 7$"):
            accl_ext.partial_cross_entropy(torch.zeros(3, 1, 30_000), y)


def test_meta_tensors_have_no_values_to_look_at():
    z = torch.zeros(2, 1, 4, 5, device="meta")
    y = torch.zeros(2, 4, 5, dtype=torch.uint8, device="meta")
    for api in (accl_ext, reference):
        assert api.partial_cross_entropy(z, y).is_meta


@pytest.mark.parametrize("lower", [3.0, math.nan, math.inf, -math.inf])
def test_bounds_in_order_or_free_are_taken(lower):
    for api in (accl_ext, reference):
        api.size_penalty(torch.zeros(1, 1, 4), (lower, 3.0))
        api.size_penalty(torch.zeros(1, 1, 4), (3.0, lower))


def test_bounds_in_a_tensor_are_not_compared():
    """That would synchronise; where a > b both sides apply in turn."""
    bounds = torch.tensor([3.0, 1.0])
    z = torch.zeros(1, 1, 4)  # V = 2 < 3: the lower side
    assert accl_ext.size_penalty(z, bounds, normalize="none").item() == 1


# ---------------------------------------------------------------------------------------------
# Backward ops, for who calls them directly


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_gradients_given_to_the_backward_ops(device):
    ops = torch.ops.accl_ext

    def zeros(*shape, dtype=torch.float32):
        return torch.zeros(shape, dtype=dtype, device=device)

    x = zeros(2, 1, 3, 3)
    with pytest.raises(TypeError, match=r"^grad_loss must be float32, got float64$"):
        ops._accl_loss_backward(zeros(dtype=torch.float64), x, 1.0, 0, 0)
    with pytest.raises(ValueError, match=r"^grad_loss must have shape \[2, 1, 3, 3\], got \[\]$"):
        ops._accl_loss_backward(zeros(), x, 1.0, 0, 2)

    def pixel_backward(*gradients):
        absent = (None,) * 5
        return ops._segmentation_head_backward(
            *gradients, x, *absent, 255, None, None, 0.0, 0, 0, 0
        )

    with pytest.raises(TypeError, match=r"^grad_probabilities must be float32, got float16$"):
        pixel_backward(zeros(2, 1, 3, 3, dtype=torch.float16), None, None, None)
    with pytest.raises(ValueError, match=r"^grad_ce needs labels and ce_scale$"):
        pixel_backward(None, zeros(), None, None)
    with pytest.raises(ValueError, match=r"^grad_penalty needs soft_size and penalty_scale$"):
        pixel_backward(None, None, zeros(), None)
    with pytest.raises(ValueError, match=r"^grad_soft_size must have shape \[2, 1\], got \[2\]$"):
        pixel_backward(None, None, None, zeros(2))
    with pytest.raises(ValueError, match=r"^grad_overlap needs labels and overlap_sums$"):
        ops._segmentation_head_backward(
            *(None,) * 4, x, *(None,) * 5, 255, None, None, 0.0, 0, 0, 0, zeros()
        )
    y = torch.zeros(2, 3, 3, dtype=torch.uint8, device=device)
    for numbers, message in (
        ([0.5], "overlap must be 9 numbers, got 1"),
        ([-1.0] + [0.0] * 8, "number 0 of overlap must be finite and at least 0, got -1"),
        ([0.5] * 4 + [0.0] * 4 + [4.0], "reduction must be 0 to 2, got 4"),
    ):
        with pytest.raises(ValueError, match="^" + message + "$"):
            ops.partial_overlap_loss(x, y, 255, None, None, numbers)
