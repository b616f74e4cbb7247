"""The reference of partial_overlap_loss: numbers by hand, and the libraries that have the loss."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from accl_ext import reference
from ops.oracle import make_labels, make_logits

inf, nan = math.inf, math.nan


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def two_images() -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities 3/4, 1/2, 1/4, 1/2 with labels 1, 1, 0, none, and a second image without 1."""
    z = [[logit(0.75), 0.0, logit(0.25), 0.0], [0.0, logit(0.25), 0.0, 0.0]]
    z = torch.tensor(z, dtype=torch.float64).unsqueeze(1)
    return z, torch.tensor([[1, 1, 0, 255], [0, 0, 255, 255]])


# Image 0: TP = 3/4 + 1/2 = 5/4, S = 3/2, Y = 2; of the background TP = 3/4, S = 3/2, Y = 1.
# Image 1: TP = 0, S = 3/4, Y = 0; of the background TP = S = 5/4, Y = 2.
BY_HAND = [
    ({}, 1 - 1.25 / 1.75),
    ({"absent": "keep"}, (1 - 1.25 / 1.75 + 1) / 2),
    ({"reduction": "none"}, [[1 - 1.25 / 1.75], [0.0]]),
    ({"absent": "keep", "reduction": "none"}, [[1 - 1.25 / 1.75], [1.0]]),
    ({"alpha": 1.0, "beta": 1.0}, 1 - 1.25 / 2.25),  # Jaccard: TP / (S + Y - TP)
    ({"alpha": 0.3, "beta": 0.7}, 1 - 1.25 / (1.25 + 0.3 * 0.25 + 0.7 * 0.75)),
    ({"alpha": 0.0, "beta": 1.0}, 1 - 1.25 / 2),  # sensitivity TP / Y
    ({"alpha": 1.0, "beta": 0.0}, 1 - 1.25 / 1.5),  # precision TP / S
    ({"smooth_numerator": 0.5, "smooth_denominator": 0.25}, 1 - 1.75 / 2.0),
    ({"smooth_numerator": 1, "smooth_denominator": 1, "absent": "keep"},
     (1 - 2.25 / 2.75 + 1 - 1 / (1 + 0.375)) / 2),
    ({"batch": True}, 1 - 1.25 / (0.5 * 2.25 + 0.5 * 2)),
    ({"batch": True, "reduction": "none"}, [1 - 1.25 / 2.125]),
    # Sum of p^2: 9/16 + 4/16 + 1/16 = 7/8
    ({"squared": True}, 1 - 1.25 / (0.5 * 0.875 + 0.5 * 2)),
    ({"include_background": True, "reduction": "none"},
     [[1 - 0.75 / 1.25, 1 - 1.25 / 1.75], [1 - 1.25 / 1.625, 0.0]]),
    ({"include_background": True}, (1 - 0.75 / 1.25 + 1 - 1.25 / 1.75 + 1 - 1.25 / 1.625) / 3),
    # Weights 1 of the background (twice) and 3 of the object (once).
    ({"include_background": True, "weight": torch.tensor([1.0, 3.0])},
     (1 - 0.75 / 1.25 + 3 * (1 - 1.25 / 1.75) + 1 - 1.25 / 1.625) / 5),
    ({"weight": torch.tensor([9.0, 2.0]), "reduction": "sum"}, 2 * (1 - 1.25 / 1.75)),
    ({"weight": torch.tensor([9.0, 0.0])}, 0.0),
    # Weights 2, 0, 1 of the labelled pixels: TP = 3/2, S = 7/4, Y = 2.
    ({"pixel_weight": torch.tensor([[2.0, 0, 1, nan], [0, 0, inf, inf]])}, 1 - 1.5 / 1.875),
]  # fmt: skip


@pytest.mark.parametrize(("options", "wanted"), BY_HAND, ids=str)
def test_by_hand(options, wanted):
    got = reference.partial_overlap_loss(*two_images(), **options)
    torch.testing.assert_close(got, torch.tensor(wanted, dtype=torch.float64), rtol=1e-14, atol=0)
    overlap = {name: x for name, x in options.items() if name != "pixel_weight"}
    head = reference.segmentation_head(
        *two_images(), pixel_weight=options.get("pixel_weight"), overlap=overlap
    )
    assert torch.equal(head.overlap, got)


def test_three_classes_by_hand():
    """p = (1/2, 1/4, 1/4) labelled 0, (1/4, 1/2, 1/4) labelled 1, (0, 1/4, 3/4) labelled 0."""
    p = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0, 0.25, 0.75]], dtype=torch.float64)
    z, y = p.T.log().unsqueeze(0), torch.tensor([[0, 1, 0]])
    each = reference.partial_overlap_loss(z, y, reduction="none")
    # TP, S, Y: 1/2, 3/4, 2; 1/2, 1, 1; 0, 5/4, 0
    assert each.flatten().tolist() == pytest.approx([1 - 0.5 / 1.375, 0.5, 0.0], rel=1e-14)
    without = reference.partial_overlap_loss(z, y, include_background=False)
    assert without.item() == pytest.approx(0.5, rel=1e-14)
    keep = reference.partial_overlap_loss(z, y, include_background=False, absent="keep")
    assert keep.item() == pytest.approx(0.75, rel=1e-14)


def test_gradient_by_hand():
    """One pixel labelled 1 and one labelled 0, both p = 1/2: T = (1/2) / (1/2 + 1/2 + 0) = 1/2.

    With N / D = (1/2) / 1, dT/dp is (1 - T / 2) / D = 3/4 at the first pixel and -(T / 2) / D =
    -1/4 at the second; the slope of the sigmoid is 1/4.
    """
    z = torch.zeros(1, 1, 2, dtype=torch.float64, requires_grad=True)
    reference.partial_overlap_loss(z, torch.tensor([[1, 0]])).backward()
    assert z.grad.flatten().tolist() == pytest.approx([-3 / 16, 1 / 16], rel=1e-14)


def test_nothing_labelled_is_nothing():
    z = make_logits(2, 3).requires_grad_()
    for options in ({}, {"absent": "keep"}, {"batch": True}, {"reduction": "none"}):
        loss = reference.partial_overlap_loss(z, torch.full((2, 5, 7), 255), **options)
        (gradient,) = torch.autograd.grad(loss.sum(), z)
        assert not loss.any()
        assert not gradient.any()


@pytest.mark.parametrize("absent", ["skip", "keep"])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("classes", [1, 3])
def test_derivatives(classes, squared, batch, absent):
    z, y = make_logits(2, classes, (3, 3)).requires_grad_(), make_labels(2, classes, (3, 3))

    def loss(z):
        return reference.partial_overlap_loss(
            z, y, squared=squared, batch=batch, absent=absent, alpha=0.3, beta=0.8
        )

    assert gradcheck(loss, z)
    assert gradgradcheck(loss, z)


# ---------------------------------------------------------------------------------------------
# The same loss elsewhere


def one_hot(y: torch.Tensor, classes: int) -> torch.Tensor:
    """[B, *S] -> [B, max(C, 2), *S] in float64."""
    known = torch.where(y == 255, 0, y).long()
    return torch.nn.functional.one_hot(known, max(classes, 2)).movedim(-1, 1).double()


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("jaccard", [False, True])
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("smooth", [(1e-5, 1e-5), (0.5, 2.0)])
def test_monai_dice(classes, batch, jaccard, background, squared, smooth):
    """MONAI's absent classes take the formula; its smoothing constants are twice ours in Dice."""
    from monai.losses import DiceLoss

    z, y = make_logits(3, classes, (5, 7)), make_labels(3, classes, (5, 7), labelled=0.5)
    mask = (y != 255).unsqueeze(1)
    target = one_hot(y, classes)[:, 1:] if classes == 1 else one_hot(y, classes)
    numerator, denominator = smooth
    monai = DiceLoss(
        include_background=background,
        jaccard=jaccard,
        squared_pred=squared,
        batch=batch,
        smooth_nr=numerator,
        smooth_dr=denominator,
    )
    p = z.sigmoid() if classes == 1 else z.softmax(1)
    # DiceLoss has no mask: what is unlabelled is taken out of both maps.
    wanted = monai(p * mask, target * mask)
    # Its Jaccard is (2 TP + a) / (2 (S + Y - TP) + b), like its Dice (2 TP + a) / (S + Y + b).
    got = reference.partial_overlap_loss(
        z,
        y,
        alpha=1.0 if jaccard else 0.5,
        beta=1.0 if jaccard else 0.5,
        smooth_numerator=numerator / 2,
        smooth_denominator=denominator / 2,
        absent="keep",
        include_background=None if classes == 1 else background,
        squared=squared,
        batch=batch,
    )
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.5), (0.3, 0.7), (1.0, 1.0), (0.9, 0.0)])
def test_monai_tversky(classes, batch, alpha, beta):
    from monai.losses import MaskedLoss, TverskyLoss

    z, y = make_logits(3, classes, (5, 7)), make_labels(3, classes, (5, 7), labelled=0.5)
    mask = (y != 255).unsqueeze(1)
    target = one_hot(y, classes)[:, 1:] if classes == 1 else one_hot(y, classes)
    constants = {"smooth_nr": 0.25, "smooth_dr": 0.75}
    p = z.sigmoid() if classes == 1 else z.softmax(1)
    wanted = MaskedLoss(TverskyLoss, alpha=alpha, beta=beta, batch=batch, **constants)(
        p, target, mask
    )
    got = reference.partial_overlap_loss(
        z,
        y,
        alpha=alpha,
        beta=beta,
        smooth_numerator=0.25,
        smooth_denominator=0.75,
        absent="keep",
        batch=batch,
    )
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("background", [False, True])
def test_nnunet_dice(batch, background):
    """MemoryEfficientSoftDiceLoss is minus the Dice, with its mask of labelled pixels."""
    dice = pytest.importorskip("nnunetv2.training.loss.dice", reason="nnunetv2 is not installed")
    z, y = make_logits(3, 4, (5, 7)), make_labels(3, 4, (5, 7), labelled=0.5)
    mask = (y != 255).unsqueeze(1)
    theirs = dice.MemoryEfficientSoftDiceLoss(
        apply_nonlin=lambda x: x.softmax(1), batch_dice=batch, do_bg=background, smooth=1e-5,
        ddp=False,
    )  # fmt: skip
    labels = torch.where(y == 255, 0, y).unsqueeze(1)
    wanted = 1 + theirs(z, labels, loss_mask=mask)
    got = reference.partial_overlap_loss(
        z,
        y,
        smooth_numerator=0.5e-5,
        smooth_denominator=0.5e-5,
        absent="keep",
        include_background=background,
        batch=batch,
    )
    # nnU-Net adds in float32.
    torch.testing.assert_close(got, wanted.double(), rtol=1e-6, atol=0)


def test_segmentation_models_divides_by_all_classes():
    """Its DiceLoss gives 0 for an absent class and still divides by the number of all classes."""
    z, y = make_logits(2, 4, (5, 7)), make_labels(2, 3, (5, 7))  # nothing of class 3
    p, t = z.softmax(1) * (y != 255).unsqueeze(1), one_hot(y, 4) * (y != 255).unsqueeze(1)
    axes = (0, 2, 3)
    score = 2 * (p * t).sum(axes) / (p + t).sum(axes)  # segmentation_models_pytorch.losses.DiceLoss
    wanted = ((1 - score) * (t.sum(axes) > 0)).mean()
    got = reference.partial_overlap_loss(z, y, batch=True, reduction="none").mean()
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0)
    got = reference.partial_overlap_loss(z, y, batch=True)
    torch.testing.assert_close(got, wanted * 4 / 3, rtol=1e-12, atol=0)
