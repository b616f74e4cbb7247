"""What an option is where it was not given: the method says."""

from __future__ import annotations

from typing import Any

from . import terms
from .data.options import ReferenceKind
from .methods import METHODS, Method

ADAM_RATE = 2e-4
"""Of the discriminator, where the segmentation network has a rate for SGD."""


class MethodDefaults:
    """The options of a ``TrainConfig`` that depend on its method, as a training takes them."""

    method: Any
    second_stage: Any
    conditional: Any
    soften: Any
    d_noise: Any
    references: Any
    optimizer: Any
    lr: Any
    d_lr: Any

    @property
    def table_row(self) -> Method:
        """What the method's name stands for."""
        return METHODS[self.method]

    def weight(self, name: str) -> float | None:
        """The weight of the term of this name, 0 where it is off; None: measured on the data."""
        (term,) = (term for term in terms.TERMS if term.name == name)
        return term.weight_of(self)

    @property
    def accl_weight(self) -> float:
        """alpha of eq. (4), 0 where ACCL is off."""
        return self.weight("accl")

    @property
    def has_second_stage(self) -> bool:
        """Whether a second network learns the masks that the first one found."""
        return self.table_row.second_stage if self.second_stage is None else self.second_stage

    @property
    def sees_image(self) -> bool:
        """Whether the discriminator sees the image."""
        return self.table_row.conditional if self.conditional is None else self.conditional

    @property
    def softening(self) -> float:
        """Standard deviation of the reference masks' blur in pixels."""
        return self.table_row.soften if self.soften is None else self.soften

    @property
    def noise(self) -> float:
        """Standard deviation of the noise on what the discriminator sees."""
        return self.table_row.noise if self.d_noise is None else self.d_noise

    @property
    def discriminator_rate(self) -> float:
        """Learning rate that the discriminator starts with."""
        if self.d_lr is not None:
            return self.d_lr
        return self.lr if self.optimizer == "adam" else ADAM_RATE

    @property
    def uses_references(self) -> bool:
        """Whether any term asks the reference masks."""
        return self.accl_weight > 0 or self.asks_masks or self.table_row.data_term == "grown"

    @property
    def asks_masks(self) -> bool:
        """Whether a term's numbers are measured on the reference masks."""
        return any(term.asks_masks(self) for term in terms.TERMS)

    @property
    def reference_kind(self) -> ReferenceKind:
        """What D sees as real."""
        row = self.table_row
        named = row.folder_kind if self.references.folder else row.reference_kind
        return self.references.kind or named
