"""The seven methods of the paper's Table 1 and three beyond it: what each is trained on.

=================  =====================  ==================  =================================
method             data term              constraint          reference masks R of D
=================  =====================  ==================  =================================
``weak_ce``        BCE, unlabelled = 0
``partial_ce``     partial CE
``sccl``           partial CE             size penalty
``partial_accl``   partial CE             ACCL                the image's own weak mask
``unpaired_accl``  partial CE             ACCL                a mask drawn from the training set
``paired_accl``    partial CE             ACCL                the image's own mask
``fs_ce``          BCE with the full mask
-----------------  ---------------------  ------------------  ---------------------------------
``sccl_crf``       partial CE             size penalty,
                                          gated CRF
``accl_crf``       partial CE             ACCL, gated CRF,    a mask drawn from the training set,
                                          sizes, two views    softened; D sees it alone, in noise
``walker``         BCE with a mask grown
                   from the marks
=================  =====================  ==================  =================================

The gated CRF is what none of the paper's terms is: a look at the image. With it the masks of other
images teach the shape of objects whose extent the image gives; without it they can teach a network
one mask for all images.

``walker`` is what a person would do without this package: grow a mask of each training image from
its marks (:mod:`~.data.grow`), then train on these masks.

The binary cross-entropy of all pixels is the partial cross-entropy with every pixel labelled, so
one operation serves all methods; they differ in the labels it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Labels = Literal["weak", "weak_or_background", "full", "grown"]


@dataclass(frozen=True)
class Method:
    """One row of the table; what a term weighs with a method stands in the term's file.

    Attributes:
        data_term: the labels of the cross-entropy: ``weak`` (unlabelled pixels ignored),
            ``weak_or_background`` (unlabelled pixels count as background), ``full`` masks, or masks
            ``grown`` from the weak labels.
        accl: whether the adversarial term is on by default.
        reference_kind: what D sees as real where ACCL is on, unless the config says otherwise.
        folder_kind: the same where a folder of masks is named.
        alpha: default weight of ACCL for data that are not the paper's.
        alpha_of_classes: the same with more than two classes, where it is another one: labels of
            every class, the background too, say more than labels of one object, and masks of
            others should say less.
        second_stage: whether a second network learns masks that the first one found, by default.
        conditional: whether D sees the image beside the mask by default.
        soften, noise: default standard deviations of the Gaussian blur of the reference masks, in
            pixels, and of the noise on all masks that D sees.
        in_paper: whether it is one of the paper's seven.
        by_name: whether ``accl compare`` trains it only where ``--methods`` names it.
    """

    data_term: Labels
    accl: bool = False
    reference_kind: str = "unpaired"
    folder_kind: str = "folder"
    alpha: float = 1e-2
    alpha_of_classes: float | None = None
    second_stage: bool = False
    conditional: bool = True
    soften: float = 0.0
    noise: float = 0.0
    in_paper: bool = True
    by_name: bool = False


METHODS: dict[str, Method] = {
    "weak_ce": Method("weak_or_background"),
    "partial_ce": Method("weak"),
    "sccl": Method("weak"),
    "partial_accl": Method("weak", accl=True, reference_kind="own_weak", alpha=1e-3),
    "unpaired_accl": Method("weak", accl=True),
    "paired_accl": Method("weak", accl=True, reference_kind="paired"),
    "fs_ce": Method("full"),
    "sccl_crf": Method("weak", in_paper=False),
    "accl_crf": Method(
        "weak",
        accl=True,
        folder_kind="auto",
        alpha=0.3,
        alpha_of_classes=0.05,
        conditional=False,
        soften=1.0,
        noise=0.2,
        in_paper=False,
    ),
    "walker": Method("grown", in_paper=False, by_name=True),
}

PAPER_BOUNDS: dict[str, tuple[float, float]] = {
    "paper_disc": (1359, 5625),
    "paper_cup": (508, 3947),
    "paper_lv": (23, 2333),
    "paper_pupil": (306, 2053),
}
"""Size bounds of the paper in pixels of a 256 x 256 image."""
