"""The size balance: the mean size over the training images is held at the reference masks'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..classes import by_class, decided_maps
from .sizes import mean_sizes
from .term import Material, Pass, Term, check_weight


@dataclass(frozen=True)
class SizeBalanceOptions:
    """Size balance."""

    size_balance: float | None = None
    """The term that holds the mean size over the training images at the reference masks' has this
    weight, 0 for off; default: 3 for accl_crf, else 0."""

    def check(self) -> None:
        """Refuse values that the term cannot have.

        Raises:
            UserError: naming the option.
        """
        check_weight(self, "size_balance")


class SizeBalance(Term, nn.Module):
    """Holds the mean size over the training images at that of the reference masks.

    The prior draws every image to one size. This term draws the pixels of all images alike, up
    where their masks came out too small over about an epoch, down where too large, and leaves each
    image its place among them: a Lagrange multiplier of the mean size. It undoes the shrinkage
    that any price of an outline brings.

    Args:
        weight: of the term.
        sizes: mean size of the reference masks in pixels, of each object class; None for a class
            that no mask shows, which is left alone.
        images: number of training images, the memory of the running mean.
    """

    name = "size_balance"
    options = SizeBalanceOptions
    weight_option = "size_balance"
    by_method: ClassVar = {"accl_crf": 3.0}
    curves = (("size_balance", "size balance", "symlog"),)
    always = True
    asks = True
    fact = "mean_size"

    seen: Tensor
    """Running mean of the predicted sizes [K]; saved with the networks."""

    def __init__(self, weight: float, sizes: Sequence[float | None], images: int):
        super().__init__()
        self.weight, self.sizes, self.images = weight, tuple(sizes), images
        known = torch.tensor([size is not None for size in sizes])
        target = torch.tensor([size or 1.0 for size in sizes], dtype=torch.float64)
        self.register_buffer("known", known, persistent=False)
        self.register_buffer("target", target, persistent=False)
        # From the right size on: nothing is drawn before something was seen.
        self.register_buffer("seen", target.clone())

    def load_state_dict(self, state: Any, *args: Any, **options: Any) -> Any:
        """Take the single number of runs before several classes as well."""
        state = {name: value.view_as(getattr(self, name)) for name, value in state.items()}
        return super().load_state_dict(state, *args, **options)

    def forward(
        self, predicted: Tensor, sizes: Tensor, present: Tensor, total: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """The mean pull on the images of this process, by what was seen before them.

        Args:
            predicted: pixels that are called the object [b, K], as they would be without the move.
            sizes: soft sizes [b, K], likewise: the threshold has no gradient, and without it a
                faint haze over the background would count.
            present: bool [b, K]: which images hold the object; the others are left alone.
            total: adds a tensor up over the processes.
        """
        present = present & self.known
        pull = (self.seen / self.target - 1).to(sizes.dtype)
        off = torch.where(present, predicted.double() - self.seen, 0.0)
        self.seen += total(off.sum(0)) / self.images
        shares = torch.where(present, sizes / self.target.to(sizes.dtype), 0.0)
        return (pull * shares.mean(0)).mean()

    @classmethod
    def measure(cls, config, material: Material) -> SizeBalance:
        """The mean size over the masks that show the class."""
        sizes = mean_sizes(material.masks, config.foregrounds)
        return cls(cls.weight_of(config), sizes, len(material.images))

    def told(self, config) -> Any:
        """The mean size of each class."""
        return by_class(self.sizes, config.classes)

    def value(self, passed: Pass) -> Tensor:
        """A mean over the images."""
        predicted = decided_maps(passed.head.probabilities.detach()).sum((2, 3)) / passed.scale
        return self(predicted, passed.sizes, passed.batch.present, passed.step.total)
