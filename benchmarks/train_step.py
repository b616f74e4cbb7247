"""One whole training step of unpaired ACCL: the harness's against a plainly written PyTorch step.

    python benchmarks/train_step.py --widths 16 64 --batches 1 8 --precisions 32 bf16 --out results
    python benchmarks/train_step.py --crf       # what the gated CRF costs in a step of preset small
    python benchmarks/train_step.py --accl-crf  # a step of accl_crf, preset small

Results are compared first (same weights in, same loss and gradients out); then all contenders are
timed in turn and the median of the rounds' ratios is taken. ``plain`` is float32 throughout
(``plain_train_step.py``); each precision is compared with it and with a plain step of its own
precision. ``--profile`` adds where the time goes and the share of the losses; ``--bound`` a step
whose norms and activations are taken out, to see what is left to gain outside the convolutions.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import platform
import time
from pathlib import Path

import torch
from accl_harness.bench import interleaved
from accl_harness.config import make_config
from accl_harness.data.dataset import Dataset
from accl_harness.networks import build_discriminator, build_generator
from accl_harness.networks.blocks import DownConv, ScoreConv, UpConv
from accl_harness.terms.gated_crf import CRFOptions
from accl_harness.training.loop import Trainer
from accl_harness.training.ops import load_ops
from accl_harness.training.runtime import launch
from plain_train_step import PlainStep
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

_AUTOCAST = {"32": None, "bf16": torch.bfloat16}
_TOLERANCE = {"32": 1e-3, "bf16": 0.1}


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    if options.crf:
        show_cost_of_crf(options)
        return
    if options.accl_crf:
        show_accl_crf(options)
        return
    rows = []
    for width in options.widths:
        for batch in options.batches:
            for precision in options.precisions:
                new = measure(width, batch, precision, options)
                for row in new:
                    print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
                rows += new
    if options.out is not None:
        write(options.out, rows, options)


def measure(width: int, batch: int, precision: str, options) -> list[dict]:
    """Rows of one setting: a row a contender."""
    trainer = make_trainer(width, batch, precision, options)
    (example,) = trainer.data.epoch(1)
    plain = {"plain": plain_step(trainer, None)}
    if precision == "bf16":
        plain["plain bf16"] = plain_step(trainer, torch.bfloat16)
    same = plain[f"plain {precision}" if precision == "bf16" else "plain"]
    deviation = compare(trainer, same, example, _TOLERANCE[precision])
    contenders = {
        name: lambda step=step: step(example.images, example.labels, example.references)
        for name, step in plain.items()
    }
    contenders["accl"] = lambda: trainer.step(example)
    if options.bound:
        bare = make_trainer(width, batch, precision, options)
        strip(bare.state.generator)
        strip(bare.state.discriminator)
        contenders["bare"] = lambda: bare.step(example)
    timings = interleaved(contenders, options.rounds, synchronize=options.device == "cuda")
    if options.profile:
        show_profile(trainer, example, f"width {width}, batch {batch}, {precision}")
    return [
        {
            "width": width,
            "batch": batch,
            "precision": precision,
            "step": name,
            "ms": round(timing.milliseconds, 2),
            "spread_ms": round(timing.spread, 2),
            "times_faster_than_plain": round(timing.ratio, 3),
            "gradient_deviation": f"{deviation:.1e}" if name == "accl" else "",
        }
        for name, timing in timings.items()
    ]


def show_cost_of_crf(options) -> None:
    """A step of preset small with and without the gated CRF, in turn, for each method."""
    for method in ("sccl", "unpaired_accl"):
        steps = {}
        for name, weight in (("without", 0.0), ("with", 0.3)):
            config = make_config("small", method=method, crf=CRFOptions(weight=weight))
            dataset = square_dataset(config.batch_size, config.size)
            trainer = Trainer(config, dataset, None, load_ops(options.backend), launch(config))
            (example,) = trainer.data.epoch(1)
            steps[name] = lambda t=trainer, e=example: t.step(e)
        timings = interleaved(steps, options.rounds, synchronize=options.device == "cuda")
        cost = 100 * (1 / timings["with"].ratio - 1)
        times = ", ".join(f"{name} {t.milliseconds:.2f} ms" for name, t in timings.items())
        print(f"{method}: {times}: the gated CRF adds {cost:.1f} % (median of the rounds' ratios)")


def show_accl_crf(options) -> None:
    """A step of ``accl_crf``, preset small, in each precision, against plain PyTorch in float32.

    The plain step does the same work (two views, D twice for its update and once for G's) with the
    losses of ``accl_ext.reference``, PyTorch's own convolutions and its default Adam.
    """
    trainers = {"plain": accl_crf_trainer("32", "reference", options)}
    for precision in options.precisions:
        trainers[f"accl {precision}"] = accl_crf_trainer(precision, "fused", options)
    plain = trainers["plain"]
    (example,) = plain.data.epoch(1)
    for network, optimizer in zip(
        (plain.state.generator, plain.state.discriminator),
        (plain.step.optimizer_g, plain.step.optimizer_d),
        strict=True,
    ):
        use_plain_layers(network)
        for group in optimizer.param_groups:
            group["fused"] = group["foreach"] = None
    first = {name: first_gradients(trainer, example) for name, trainer in trainers.items()}
    for precision in options.precisions:
        deviation = relative_difference(first[f"accl {precision}"], first["plain"])
        if not deviation <= _TOLERANCE[precision]:
            raise SystemExit(f"results differ in {precision}: gradients by {deviation:.1e}")
        print(f"accl {precision}: gradients of the first step deviate by {deviation:.1e}")
    timings = interleaved(
        {name: lambda t=trainer: t.step(example) for name, trainer in trainers.items()},
        options.rounds,
        synchronize=options.device == "cuda",
    )
    for name, timing in timings.items():
        spread = f"{timing.milliseconds:.1f} ms +- {timing.spread:.1f}"
        print(f"accl_crf, {name}: {spread}, {timing.ratio:.2f} times as fast as plain")


def accl_crf_trainer(precision: str, backend: str, options) -> Trainer:
    config = make_config(
        "small", method="accl_crf", precision=precision, accelerator=options.device
    )
    torch.manual_seed(0)
    dataset = square_dataset(config.batch_size, config.size)
    return Trainer(config, dataset, None, load_ops(backend), launch(config))


def first_gradients(trainer: Trainer, example) -> torch.Tensor:
    """G's gradients after a step whose noise and dropout are those of every contender."""
    torch.manual_seed(1)
    trainer.step(example)
    return flat_gradients(trainer.state.generator)


def square_dataset(batch: int, size: int) -> Dataset:
    """Random images with a labelled square each."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 1, size, size, generator=generator) * 2 - 1
    masks = torch.zeros(batch, size, size, dtype=torch.uint8)
    masks[:, size // 4 : size // 2, size // 4 : size // 2] = 1
    weak = torch.full_like(masks, 255)
    weak[:, size // 3 : size // 3 + 10, size // 3 : size // 3 + 10] = 1
    names = [str(i) for i in range(batch)]
    return Dataset(images=images, names=names, masks=masks, weak_labels=weak)


def make_trainer(width: int, batch: int, precision: str, options) -> Trainer:
    """The harness's step on random images with a labelled square each."""
    size = options.size
    dataset = square_dataset(batch, size)
    config = make_config(
        "paper",
        method="unpaired_accl",
        size=size,
        depth=None,
        width=width,
        batch_size=batch,
        # Random masks of dropout would differ from step to step.
        dropout=0.0,
        precision=precision,
        accelerator=options.device,
    )
    return Trainer(config, dataset, None, load_ops(options.backend), launch(config))


def strip(network: nn.Module) -> None:
    """Take norms and activations out of ``network``; what it then computes is of no use."""
    for name, module in network.named_children():
        if isinstance(module, nn.BatchNorm2d | nn.ReLU | nn.LeakyReLU):
            setattr(network, name, nn.Identity())
        else:
            strip(module)


def plain_step(trainer: Trainer, autocast: torch.dtype | None) -> PlainStep:
    """The plain step from the trainer's present weights, on PyTorch's own layers."""
    config, device = trainer.config, trainer.fabric.device
    generator = build_generator(config).to(device)
    discriminator = build_discriminator(config).to(device)
    generator.load_state_dict(trainer.state.generator.state_dict())
    discriminator.load_state_dict(trainer.state.discriminator.state_dict())
    use_plain_layers(generator)
    use_plain_layers(discriminator)
    return PlainStep(
        generator, discriminator, accl_weight=config.accl_weight, autocast=autocast, lr=config.lr
    )


def use_plain_layers(network: nn.Module) -> None:
    """PyTorch's own layers in the place of the harness's, with the same weights."""
    for module in network.modules():
        if isinstance(module, DownConv | ScoreConv | UpConv):
            module.__class__ = type(module).__base__


def compare(trainer: Trainer, plain: PlainStep, example, tolerance: float) -> float:
    """Relative difference of G's and D's gradients after the first step from the same weights."""
    plain_d = []
    plain.optimizer_d.register_step_post_hook(
        lambda *_: plain_d.append(flat_gradients(plain.discriminator))
    )
    plain(example.images, example.labels, example.references)
    trainer.step(example)
    pairs = [
        (flat_gradients(trainer.state.generator), flat_gradients(plain.generator)),
        (flat_gradients(trainer.state.discriminator), plain_d[0]),
    ]
    deviation = max(relative_difference(a, b) for a, b in pairs)
    if not deviation <= tolerance:
        raise SystemExit(f"results differ: gradients deviate by {deviation:.1e}")
    return deviation


def relative_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def flat_gradients(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in network.parameters()]).clone()


class _Named:
    """The losses under a name that the profile shows."""

    def __init__(self, ops):
        self._ops = ops

    def __getattr__(self, name: str):
        function = getattr(self._ops, name)

        def named(*arguments, **options):
            with record_function(f"loss: {name}"):
                return function(*arguments, **options)

        return named


def show_profile(trainer: Trainer, example, title: str) -> None:
    """Time by operator, and the share of the losses: forward by name, backward by autograd node."""
    ops, trainer.step.ops = trainer.step.ops, _Named(trainer.step.ops)
    with profile(activities=[ProfilerActivity.CPU]) as record:
        for _ in range(5):
            trainer.step(example)
    trainer.step.ops = ops
    events = record.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    losses = sum(event.cpu_time_total for event in events if is_loss(event.key))
    print(f"profile of {title}: the losses take {100 * losses / total:.2f} % of the step")
    print(events.table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=44))
    with FlopCounterMode(display=False) as counter:
        trainer.step(example)
    work, rate = counter.get_total_flops() / 1e9, matrix_product_rate(example.images.device)
    print(f"{work:.1f} GFLOP in products; at the {rate:.0f} GFLOP/s of a float32 matrix product")
    print(f"that is {1e3 * work / rate:.0f} ms, whatever the step does besides")


def matrix_product_rate(device: torch.device, size: int = 2048, repeats: int = 10) -> float:
    """GFLOP/s of a square float32 matrix product on the CPU; nan elsewhere."""
    if device.type != "cpu":
        return float("nan")
    a, b = torch.rand(2, size, size)
    a @ b
    start = time.perf_counter()
    for _ in range(repeats):
        a @ b
    return repeats * 2 * size**3 / (time.perf_counter() - start) / 1e9


def is_loss(name: str) -> bool:
    """A loss's forward (named above) or the backward node of a fused op."""
    node = name.startswith("autograd::engine::evaluate_function") and "accl" in name.lower()
    return name.startswith("loss: ") or node


def write(folder: Path, rows: list[dict], options) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "train_step.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    head = "| " + " | ".join(rows[0]) + " |"
    rule = "|" + "---|" * len(rows[0])
    body = ["| " + " | ".join(str(v) for v in row.values()) + " |" for row in rows]
    where = (
        f"{datetime.date.today()}, {platform.machine()}, {options.threads} threads on "
        f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, torch "
        f"{torch.__version__}, {options.size} x {options.size}, {options.backend} ops, "
        f"{options.device}, median of {options.rounds} rounds"
    )
    text = "\n".join(("# One training step", "", where, "", head, rule, *body, ""))
    (folder / "train_step.md").write_text(text, encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--precisions", nargs="+", choices=list(_AUTOCAST), default=["32", "bf16"])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--backend", choices=["fused", "reference"], default="fused")
    parser.add_argument("--crf", action="store_true")
    parser.add_argument("--accl-crf", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--bound", action="store_true")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
