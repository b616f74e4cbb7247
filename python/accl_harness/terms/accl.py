"""ACCL: the adversarial term of eq. (5), and the update of its discriminator by eq. (6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import UserError
from ..methods import METHODS
from .term import Material, Pass, Term, check_weight

CriterionName = Literal["lsgan", "vanilla", "hinge"]
MIN_SIZE = 24
"""The smallest size of which D makes a score: 24, 12, 6, 3, 2, 1."""


@dataclass(frozen=True)
class ACCLOptions:
    """ACCL."""

    alpha: float | None = None
    """ACCL has this weight, 0 for off; default: the method's (1e-3 partial, 1e-2 unpaired and
    paired, 0.3 accl_crf, with more than two classes 0.05)."""
    alpha_scale: float = 1.0
    """The default weights of ACCL of the paper's methods, and the paper's own, are multiplied by
    this factor; a weight that is given stays as it is."""
    conditional: bool | None = None
    """The discriminator sees the image beside the mask. With masks of other images that can teach
    it that what follows the image's edges is no reference mask; then try false. Default: false for
    accl_crf, else true."""
    soften: float | None = None
    """The reference masks are blurred by a Gaussian of this standard deviation in pixels before the
    discriminator sees them, because it tells hard masks from probabilities at once; default: 1 for
    accl_crf, else 0."""
    d_noise: float | None = None
    """All masks that the discriminator sees get Gaussian noise of this standard deviation; default:
    0.2 for accl_crf, else 0."""
    criterion: CriterionName = "lsgan"
    """The adversarial losses of both networks have this form."""
    discriminator_scale: float = 1.0
    """The discriminator's loss is multiplied by this factor; pix2pix has 0.5."""

    def check(self) -> None:
        """Refuse values that the term cannot have.

        Raises:
            UserError: naming the option.
        """
        check_weight(self, "alpha", "alpha_scale", "soften", "d_noise")


@dataclass(frozen=True)
class ACCL(Term):
    """The masks shall look to the discriminator like reference masks."""

    name = "accl"
    options = ACCLOptions
    weight_option = "alpha"
    others = ("loss_d", "d_real", "d_fake")
    curves = (
        ("accl", "ACCL, eq. (5)", "linear"),
        ("loss_d", "loss of D, eq. (6)", "linear"),
        ("d_real", "D(real) full, D(fake) dashed", "linear"),
    )
    always = True
    needs = frozenset({"references"})

    weight: float
    criterion: str
    discriminator_scale: float
    noise: float
    """Standard deviation of the noise on what D sees."""

    @classmethod
    def weight_of(cls, config) -> float:
        """alpha of eq. (4)."""
        if config.alpha is not None:
            return config.alpha
        row = METHODS[config.method]
        several = row.alpha_of_classes is not None and (config.classes or 1) > 2
        alpha = row.alpha_of_classes if several else row.alpha
        scale = config.alpha_scale if row.in_paper else 1.0
        return scale * alpha if row.accl else 0.0

    @classmethod
    def check(cls, config) -> None:
        """Refuse images too small for the discriminator.

        Raises:
            UserError: naming the option.
        """
        if cls.weight_of(config) > 0 and config.size < MIN_SIZE:
            raise UserError(
                f"size must be at least {MIN_SIZE} with ACCL, whose discriminator halves it three "
                f"times, got {config.size}"
            )

    @classmethod
    def measure(cls, config, material: Material) -> ACCL:
        """Nothing of it is measured."""
        weight, scale = cls.weight_of(config), config.discriminator_scale
        return cls(weight, config.criterion, scale, config.noise)

    def value(self, passed: Pass) -> Tensor:
        """Eq. (5), through the discriminator updated before."""
        step = passed.step
        self.update_discriminator(passed)
        with step.autocast():
            scores = step.discriminator(passed.batch.images, self.noisy(passed.objects))
        return step.ops.accl_loss(scores, criterion=self.criterion)

    def update_discriminator(self, passed: Pass) -> None:
        """Minimises eq. (6); notes loss and mean scores."""
        step, images = passed.step, passed.batch.images
        step.discriminator.requires_grad_(True)
        fake, real = self.noisy(passed.objects.detach()), self.noisy(passed.batch.references)
        with step.autocast():
            if step.one_call:
                pairs = torch.cat((images, images)), torch.cat((fake, real))
                fake_scores, real_scores = step.discriminator(*pairs).chunk(2)
            else:
                fake_scores = step.discriminator(images, fake)
                real_scores = step.discriminator(images, real)
        loss = step.ops.accl_discriminator_loss(
            fake_scores, real_scores, criterion=self.criterion, scale=self.discriminator_scale
        )
        step.update(step.discriminator, step.optimizer_d, passed.share(self, loss))
        # In G's pass D only hands gradients through: none of its own are computed.
        step.discriminator.requires_grad_(False)
        passed.notes["loss_d"] = loss.detach()
        passed.notes["d_real"] = real_scores.detach().mean()
        passed.notes["d_fake"] = fake_scores.detach().mean()

    def noisy(self, masks: Tensor) -> Tensor:
        """Masks as D sees them. The noise comes from the stream that dropout draws from."""
        if self.noise == 0:
            return masks
        return masks + self.noise * torch.randn_like(masks)
