"""Every kernel once or twice on small odd inputs, against the reference: to run under a sanitizer.

compute-sanitizer --tool memcheck python benchmarks/gpu_exercise.py [--device cpu]
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

import accl_ext

DTYPES = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
SHAPES = [
    (1, 1, 1),
    (2, 1, 5, 7),
    (3, 1, 33, 31),
    (1, 3, 65, 63),
    (2, 2, 9, 10, 11),
    (1, 4, 64, 64),
    (2, 12, 33, 36),
    (1, 1, 300, 301),
]


def compare(what: str, got: Tensor, wanted: Tensor, tolerance: float) -> None:
    scale = wanted.abs().max().clamp(min=1.0)
    error = ((got.double() - wanted.double()).abs().max() / scale).item()
    if not error <= tolerance:
        raise SystemExit(f"{what}: differs from the reference by {error:.1e}")


def outputs_and_gradients(ops, logits: Tensor, labels: Tensor, bounds: Tensor) -> list[Tensor]:
    logits = logits.detach().requires_grad_()
    head = ops.segmentation_head(logits, labels, bounds)
    partial = ops.partial_cross_entropy(
        logits, labels, pixel_weight=labels % 3 / 2, label_smoothing=0.1, reduction="none"
    )
    size = ops.size_penalty(logits, bounds, normalize="area2")
    scores = ops.accl_loss(logits, criterion="vanilla")
    crf = gated_crf(ops, logits, labels)
    both = ops.accl_discriminator_loss(logits, logits.flatten()[:1], criterion="hinge")
    total = (head.probabilities * 0.5).sum() + head.partial_ce + head.size_penalty + both
    total = total + partial.sum() + size + scores + 0.1 * head.soft_size.sum()
    total = total + sum(crf)
    return [*head, partial, size, scores, both, *crf, *torch.autograd.grad(total, logits)]


def gated_crf(ops, logits: Tensor, labels: Tensor) -> list[Tensor]:
    """One kernel without masks and with two; several kernels, five channels and one mask."""
    p = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)
    image = (logits.detach()[:, :1].double() / 4).to(logits.dtype)
    channels = torch.cat([image] * 5, 1)
    some = labels == 1
    several = ((1.0, 2.0, 0.3), (0.5, 1.5, None))
    return [
        ops.gated_crf_loss(p, image, radius=2),
        ops.gated_crf_loss(p, image, radius=2, source_mask=some, destination_mask=~some),
        ops.gated_crf_loss(p, channels, radius=2, kernels=several, source_mask=some),
    ]


def exercise(device: str) -> int:
    count = 0
    for (dtype, tolerance), shape, offset in itertools.product(DTYPES.items(), SHAPES, (0, 1)):
        generator = torch.Generator().manual_seed(count)
        numel = torch.Size(shape).numel()
        # An offset of one element makes the rows start off the 16-byte boundary.
        flat = torch.randn(numel + offset, generator=generator).to(device, dtype)
        logits = flat[offset:].view(shape)
        labels = torch.full((shape[0], *shape[2:]), 255, dtype=torch.uint8)
        labels[torch.rand(labels.shape, generator=generator) < 0.3] = 1
        labels = labels.to(device)
        pixels = numel // (shape[0] * shape[1])
        bounds = torch.tensor([0.1 * pixels, 0.2 * pixels], device=device)
        got = outputs_and_gradients(accl_ext, logits, labels, bounds)
        wanted = outputs_and_gradients(accl_ext.reference, logits, labels, bounds)
        for i, (ours, reference) in enumerate(zip(got, wanted, strict=True)):
            compare(f"{dtype} {shape} offset {offset}, output {i}", ours, reference, tolerance)
        count += 1
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    print(f"{exercise(device)} combinations agree with the reference on {device}")
