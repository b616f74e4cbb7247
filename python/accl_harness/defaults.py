"""What an option is where it was not given: the method says."""

from __future__ import annotations

from typing import Any

from .data.options import ReferenceKind
from .methods import METHODS, Method

SIZE_WEIGHT = 0.01
ADAM_RATE = 2e-4
"""Of the discriminator, where the segmentation network has a rate for SGD."""


class MethodDefaults:
    """The options of a ``TrainConfig`` that depend on its method, as a training takes them."""

    method: Any
    classes: Any
    alpha: Any
    alpha_scale: Any
    size_weight: Any
    size_prior: Any
    size_balance: Any
    consistency: Any
    crf: Any
    class_balance: Any
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

    @property
    def accl_weight(self) -> float:
        """alpha of eq. (4), 0 where ACCL is off."""
        if self.alpha is not None:
            return self.alpha
        row = self.table_row
        several = row.alpha_of_classes is not None and (self.classes or 1) > 2
        alpha = row.alpha_of_classes if several else row.alpha
        scale = self.alpha_scale if row.in_paper else 1.0
        return scale * alpha if row.accl else 0.0

    @property
    def penalty_weight(self) -> float:
        """Weight of the size penalty, 0 where it is off."""
        if self.size_weight is not None:
            return self.size_weight
        return SIZE_WEIGHT if self.table_row.size else 0.0

    @property
    def crf_weight(self) -> float | None:
        """Weight of the gated CRF, 0 where it is off; None: by ``crf.cost``."""
        if self.crf.weight is not None:
            return self.crf.weight
        return None if self.table_row.crf and self.crf.cost > 0 else 0.0

    @property
    def prior_weight(self) -> float:
        """Weight of the soft size prior, 0 where it is off."""
        return self.table_row.size_prior if self.size_prior is None else self.size_prior

    @property
    def balance_weight(self) -> float:
        """Weight of the size balance, 0 where it is off."""
        return self.table_row.size_balance if self.size_balance is None else self.size_balance

    @property
    def consistency_weight(self) -> float:
        """Weight of the consistency of two views, 0 where it is off."""
        return self.table_row.consistency if self.consistency is None else self.consistency

    @property
    def balances_classes(self) -> bool:
        """Whether each class counts alike in the data term."""
        if self.class_balance is not None:
            return self.class_balance
        return self.table_row.class_balance and (self.classes or 1) <= 2

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
        weights = (self.prior_weight, self.balance_weight, self.consistency_weight)
        return any(weights) or self.crf_weight is None

    @property
    def reference_kind(self) -> ReferenceKind:
        """What D sees as real."""
        row = self.table_row
        named = row.folder_kind if self.references.folder else row.reference_kind
        return self.references.kind or named
