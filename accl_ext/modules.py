"""``nn.Module`` twins of the fused ops: options at construction, tensors at call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from . import _arguments as arguments
from . import functional as F
from ._crf_arguments import Kernels
from ._log_barrier import FIRST_T

__all__ = [
    "ACCLDiscriminatorLoss",
    "ACCLLoss",
    "GatedCRFLoss",
    "PartialCrossEntropyLoss",
    "PartialOverlapLoss",
    "SegmentationHead",
    "SizePenalty",
]


class _Options(nn.Module):
    """Keeps the options named in ``options`` as attributes and shows them.

    A tensor among them is a buffer. It moves with the module but keeps its dtype: the ops take any,
    and ``.half()`` would turn a bound of 70 000 pixels into infinity, which frees it.
    """

    options: tuple[str, ...] = ()

    def _kwargs(self) -> dict:
        return {name: getattr(self, name) for name in self.options}

    def _apply(self, fn, recurse=True):
        own = {id(buffer) for buffer in self._buffers.values()}

        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if id(tensor) not in own or moved.dtype == tensor.dtype:
                return moved
            return tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        bounds = state_dict.get(prefix + "bounds")
        if isinstance(bounds, Tensor):
            try:
                arguments.check_bounds_dtype(bounds)
            except TypeError as error:
                args[-1].append(f"{prefix}{error}")  # error_msgs: load_state_dict raises them
                return
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self._kwargs().items())


class ACCLLoss(_Options):
    """:func:`accl_ext.accl_loss` as a module: ``loss(scores)``.

    Args:
        target: what the discriminator would say of a reference mask.
        criterion: ``"lsgan"``, ``"vanilla"`` or ``"hinge"``.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    """

    options = ("target", "criterion", "reduction")

    def __init__(
        self, *, target: float = 1.0, criterion: str = "lsgan", reduction: str = "mean"
    ) -> None:
        super().__init__()
        self.target = target
        self.criterion = criterion
        self.reduction = reduction

    def forward(self, scores: Tensor) -> Tensor:
        return F.accl_loss(scores, **self._kwargs())


class ACCLDiscriminatorLoss(_Options):
    """:func:`accl_ext.accl_discriminator_loss` as a module: ``loss(fake_scores, real_scores)``.

    Args:
        fake_target: target of the scores of segmentations.
        real_target: target of the scores of reference masks.
        criterion: ``"lsgan"``, ``"vanilla"`` or ``"hinge"``.
        scale: factor of the loss; pix2pix uses 0.5.
        reduction: ``"mean"`` of each group of scores, then their sum; ``"sum"``; or ``"none"``.
    """

    options = ("fake_target", "real_target", "criterion", "scale", "reduction")

    def __init__(
        self,
        *,
        fake_target: float = 0.0,
        real_target: float = 1.0,
        criterion: str = "lsgan",
        scale: float = 1.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.fake_target = fake_target
        self.real_target = real_target
        self.criterion = criterion
        self.scale = scale
        self.reduction = reduction

    def forward(self, fake_scores: Tensor, real_scores: Tensor) -> Tensor:
        return F.accl_discriminator_loss(fake_scores, real_scores, **self._kwargs())


class PartialCrossEntropyLoss(_Options):
    """:func:`accl_ext.partial_cross_entropy` as a module.

    ``loss(logits, labels)``, also with ``pixel_weight=`` and ``mask=``.

    Args:
        ignore_index: the label of unlabelled pixels.
        weight: [C] (C = 1: [2], background and foreground), any floating dtype. It is a buffer: it
            moves with the module, keeps its dtype, and is saved in its state.
        label_smoothing: in [0, 1], as in ``torch.nn.CrossEntropyLoss``.
        reduction: ``"mean"``, ``"image_mean"``, ``"sum"`` or ``"none"``.
    """

    options = ("ignore_index", "weight", "label_smoothing", "reduction")

    def __init__(
        self,
        *,
        ignore_index: int = 255,
        weight: Tensor | None = None,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.reduction = reduction
        self.register_buffer("weight", weight)

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        pixel_weight: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        tensors = {"pixel_weight": pixel_weight, "mask": mask}
        return F.partial_cross_entropy(logits, labels, **tensors, **self._kwargs())


class PartialOverlapLoss(_Options):
    """:func:`accl_ext.partial_overlap_loss` as a module.

    ``loss(logits, labels)``, also with ``pixel_weight=`` and ``mask=``.

    Args:
        ignore_index: the label of unlabelled pixels.
        alpha: weight of what is predicted and not labelled.
        beta: weight of what is labelled and not predicted.
        smooth_numerator: added to the numerator.
        smooth_denominator: added to the denominator.
        absent: ``"skip"`` or ``"keep"``, for classes of which nothing is labelled.
        include_background: whether class 0 counts; None: for two and more classes.
        weight: as in :class:`PartialCrossEntropyLoss`.
        squared: squares the probabilities in the denominator.
        batch: the sums go over the whole batch.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    """

    options = (
        "ignore_index",
        "alpha",
        "beta",
        "smooth_numerator",
        "smooth_denominator",
        "absent",
        "include_background",
        "weight",
        "squared",
        "batch",
        "reduction",
    )

    def __init__(
        self,
        *,
        ignore_index: int = 255,
        alpha: float = 0.5,
        beta: float = 0.5,
        smooth_numerator: float = 0.0,
        smooth_denominator: float = 0.0,
        absent: str = "skip",
        include_background: bool | None = None,
        weight: Tensor | None = None,
        squared: bool = False,
        batch: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.alpha = alpha
        self.beta = beta
        self.smooth_numerator = smooth_numerator
        self.smooth_denominator = smooth_denominator
        self.absent = absent
        self.include_background = include_background
        self.squared = squared
        self.batch = batch
        self.reduction = reduction
        self.register_buffer("weight", weight)

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        pixel_weight: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        tensors = {"pixel_weight": pixel_weight, "mask": mask}
        return F.partial_overlap_loss(logits, labels, **tensors, **self._kwargs())


class SizePenalty(_Options):
    """:func:`accl_ext.size_penalty` as a module.

    ``penalty(logits)`` with the bounds given here, or ``penalty(logits, bounds)``.

    Args:
        bounds: lower and upper bound of the soft size in pixels: a pair of numbers, or a tensor
            that broadcasts to [B, C, 2] (float32 or float64; a buffer that keeps its dtype). A
            bound that is not finite leaves its side free.
        form: ``"quadratic"`` or ``"log_barrier"``.
        t: of the log barrier; an attribute, which a schedule may set.
        normalize: ``"area"``, ``"none"`` or ``"area2"``.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    """

    options = ("bounds", "form", "t", "normalize", "reduction")

    def __init__(
        self,
        bounds: Tensor | tuple[float, float] | None = None,
        *,
        form: str = "quadratic",
        t: float = FIRST_T,
        normalize: str = "area",
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.form = form
        self.t = t
        self.normalize = normalize
        self.reduction = reduction
        _keep_bounds(self, bounds)

    def forward(self, logits: Tensor, bounds: Tensor | tuple[float, float] | None = None) -> Tensor:
        kwargs = self._kwargs()
        if bounds is not None:
            kwargs["bounds"] = bounds
        if kwargs["bounds"] is None:
            raise ValueError("bounds must be given at construction or at call, got None")
        return F.size_penalty(logits, **kwargs)


class SegmentationHead(_Options):
    """:func:`accl_ext.segmentation_head` as a module.

    ``head(logits, labels)`` with the bounds given here, or ``head(logits, labels, bounds)``, both
    also with ``pixel_weight=`` and ``mask=``.

    Args:
        bounds: as in :class:`SizePenalty`; None gives a ``size_penalty`` of 0.
        ignore_index: the label of unlabelled pixels.
        weight: as in :class:`PartialCrossEntropyLoss`.
        label_smoothing: as in :class:`PartialCrossEntropyLoss`.
        normalize: as in :class:`SizePenalty`.
        size_form: ``form`` of :class:`SizePenalty`.
        size_t: ``t`` of :class:`SizePenalty`.
        overlap: options of :class:`PartialOverlapLoss`, ``dict()`` for its defaults; the output
            then has a field more. A ``weight`` among them is a buffer, ``overlap_weight``.
    """

    options = (
        "bounds",
        "ignore_index",
        "weight",
        "label_smoothing",
        "normalize",
        "size_form",
        "size_t",
        "overlap",
    )

    def __init__(
        self,
        bounds: Tensor | tuple[float, float] | None = None,
        *,
        ignore_index: int = 255,
        weight: Tensor | None = None,
        label_smoothing: float = 0.0,
        normalize: str = "area",
        size_form: str = "quadratic",
        size_t: float = FIRST_T,
        overlap: Mapping | None = None,
    ) -> None:
        super().__init__()
        self.size_form = size_form
        self.size_t = size_t
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.normalize = normalize
        self.register_buffer("weight", weight)
        self.overlap = None if overlap is None else dict(overlap)
        if overlap is not None and "weight" in overlap:
            self.register_buffer("overlap_weight", self.overlap.pop("weight"))
        _keep_bounds(self, bounds)

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        bounds: Tensor | tuple[float, float] | None = None,
        pixel_weight: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> F.SegmentationHeadOutput | F.SegmentationHeadOverlapOutput:
        kwargs = self._kwargs()
        if "overlap_weight" in self._buffers:
            kwargs["overlap"] = {**self.overlap, "weight": self.overlap_weight}
        if bounds is not None:
            kwargs["bounds"] = bounds
        return F.segmentation_head(logits, labels, pixel_weight=pixel_weight, mask=mask, **kwargs)


class GatedCRFLoss(_Options):
    """:func:`accl_ext.gated_crf_loss` as a module.

    ``loss(probabilities, image)``, or
    ``loss(probabilities, image, source_mask, destination_mask)``.

    Args:
        radius: reach of the window in pixels, at least 1.
        kernels: (weight, sigma_space, sigma_image) of each kernel.
        spacing: size of a pixel along each spatial axis; None: 1.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    """

    options = ("radius", "kernels", "spacing", "reduction")

    def __init__(
        self,
        *,
        radius: int = 5,
        kernels: Kernels = ((1.0, 6.0, 0.1),),
        spacing: Sequence[float] | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.radius = radius
        self.kernels = kernels
        self.spacing = spacing
        self.reduction = reduction

    def forward(
        self,
        probabilities: Tensor,
        image: Tensor,
        source_mask: Tensor | None = None,
        destination_mask: Tensor | None = None,
    ) -> Tensor:
        return F.gated_crf_loss(
            probabilities,
            image,
            source_mask=source_mask,
            destination_mask=destination_mask,
            **self._kwargs(),
        )


def _keep_bounds(module: nn.Module, bounds: Tensor | tuple[float, float] | None) -> None:
    if isinstance(bounds, Tensor):
        arguments.check_bounds_dtype(bounds)
        module.register_buffer("bounds", bounds)
    else:
        module.bounds = bounds
