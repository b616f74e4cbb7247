"""Everything that needs a GPU, in one run: build, tests, sanitizers, launches, speed.

    python benchmarks/gpu_check.py                      # writes docs/gpu_check.md
    python benchmarks/gpu_check.py --only launches speed --rounds 5

Needs a GPU, the CUDA toolkit (nvcc, compute-sanitizer), CMake, Ninja and an environment with a CUDA
torch, pytest and the harness extra. The build goes into accl_ext/ of this folder. Exit status 1 if
a step failed; the results file is written in any case, after every step.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT), str(ROOT / "python")]

Step = Iterator[str]  # a step yields lines of Markdown and raises Failed at its end


class Failed(Exception):
    pass


def call(*command: object, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )


def tail(result: subprocess.CompletedProcess, lines: int = 15) -> str:
    return "```\n" + "\n".join((result.stdout + result.stderr).splitlines()[-lines:]) + "\n```"


def require(result: subprocess.CompletedProcess) -> subprocess.CompletedProcess:
    if result.returncode != 0:
        raise Failed(f"exit status {result.returncode}\n\n{tail(result, 40)}")
    return result


def step_build(_: argparse.Namespace) -> Step:
    build = ROOT / "build-gpu"
    options = [
        "-DACCL_EXT_CUDA=on",
        "-DACCL_EXT_LINEINFO=ON",  # the sanitizers name source lines
        "-DACCL_EXT_TESTS=OFF",
        f"-DPython_EXECUTABLE={sys.executable}",
    ]
    configured = require(call("cmake", "-S", ROOT, "-B", build, "-G", "Ninja", *options))
    for line in configured.stdout.splitlines():
        if line.startswith("-- accl_ext"):
            yield f"- {line[3:]}"
    start = time.monotonic()
    require(call("cmake", "--build", build))
    require(call("cmake", "--install", build, "--prefix", ROOT))
    yield f"- built in {time.monotonic() - start:.0f} s"


def step_tests(_: argparse.Namespace) -> Step:
    result = call(sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider")
    yield tail(result, 3)
    require(result)


def step_sanitizers(_: argparse.Namespace) -> Step:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        raise Failed("compute-sanitizer is not on PATH")
    for tool in ("memcheck", "racecheck", "initcheck", "synccheck"):
        # Without torch's cache every tensor is an allocation of its own, with bounds to check.
        result = call(
            *(sanitizer, "--tool", tool, "--error-exitcode", 9, "--launch-timeout", 120),
            *(sys.executable, HERE / "gpu_exercise.py"),
            PYTORCH_NO_CUDA_MEMORY_CACHING="1",
        )
        yield f"- {tool}: {'clean' if result.returncode == 0 else 'FAILED'}"
        yield tail(result, 4)
        require(result)


def on_gpu(case):
    """The case of benchmarks/ops.py with its tensors on the GPU."""
    inputs = tuple(x.detach().cuda().requires_grad_(x.requires_grad) for x in case.inputs)
    return replace(
        case, inputs=inputs, output_gradients=tuple(g.cuda() for g in case.output_gradients)
    )


def device_work(function: Callable) -> tuple[int, int]:
    """Kernels launched and memory set on the device during one call."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    function()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        function()
        torch.cuda.synchronize()
    names = [event.name for event in profiler.events() if event.device_type.name == "CUDA"]
    sets = sum(name.startswith("Memset") for name in names)
    return len(names) - sets, sets


def step_launches(_: argparse.Namespace) -> Step:
    import ops
    import torch

    yield "Kernels, and sets of memory: a forward that sums in several blocks clears their ticket."
    yield ""
    yield "| op | forward | backward |"
    yield "|---|---|---|"
    wrong = []
    for name in ("head-16x256", "partial-16x256", "accl-900", "discriminator-900", "size-16x256"):
        case = on_gpu(size_case() if name.startswith("size") else ops.CASES[name](name))
        outputs = case.fused(*case.inputs)
        outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        leaves = [x for x in case.inputs if x.requires_grad]

        def backward(outputs=outputs, leaves=leaves, case=case):
            torch.autograd.grad(outputs, leaves, case.output_gradients, retain_graph=True)

        forward = device_work(lambda case=case: case.fused(*case.inputs))
        gradient = device_work(backward)
        yield f"| {name} | {forward[0]} + {forward[1]} | {gradient[0]} + {gradient[1]} |"
        if forward not in ((1, 0), (1, 1)) or gradient != (1, 0):
            wrong.append(name)
    for name, masks in crf_masks().items():
        forward, gradient = crf_work(masks)
        counts = (f"{kernels} + {sets}" for kernels, sets in (forward, gradient))
        yield f"| gated-crf-4x256{name} | {' | '.join(counts)} |"
        # A mean over destinations counts them first.
        if forward[0] > (2 if masks else 1) or (not masks and gradient != (1, 0)):
            wrong.append(f"gated-crf-4x256{name}")
    if wrong:
        raise Failed(
            "more than one kernel (and one set of memory) forward and one kernel backward: "
            + ", ".join(wrong)
        )


def crf_inputs(case: str = "4x1x256") -> tuple:
    import gated_crf

    p, image = gated_crf.inputs(*gated_crf.CASES[case])
    return p.detach().cuda().requires_grad_(), image.cuda()


def crf_masks() -> dict[str, dict]:
    """Masks of the gated CRF loss, by the words that name them in a table."""
    import torch

    source, destination = torch.rand(2, 4, 256, 256, device="cuda") < 0.6
    return {"": {}, ", two masks": {"source_mask": source, "destination_mask": destination}}


def crf_work(masks: dict) -> tuple[tuple[int, int], tuple[int, int]]:
    """Kernels and sets of memory of the gated CRF loss, forward and backward."""
    import gated_crf
    import torch

    import accl_ext

    p, image = crf_inputs()

    def call():
        return accl_ext.gated_crf_loss(
            p, image, radius=gated_crf.RADIUS, kernels=gated_crf.KERNELS, **masks
        )

    loss = call()
    gradient = device_work(lambda: torch.autograd.grad(loss, p, retain_graph=True))
    return device_work(call), gradient


def size_case():
    import ops
    import torch

    import accl_ext

    head = ops.head_case("size-16x256", 16, 256, 256)
    logits, _, bounds = head.inputs
    return ops.Case(
        *("size-16x256", (logits, bounds), accl_ext.size_penalty, accl_ext.size_penalty),
        *((torch.ones(()),), 12 * logits.numel()),
    )


def seconds(function: Callable, repeats: int) -> float:
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000 / repeats


def step_speed(arguments: argparse.Namespace) -> Step:
    import ops
    import torch

    yield "Medians over interleaved rounds; bandwidth is the least bytes of the case over the time."
    yield ""
    yield "| case | contender | median us | times fused | GB/s | of the copy's |"
    yield "|---|---|---|---|---|---|"
    slower = []
    for name, make in ops.CASES.items():
        case = on_gpu(make(name))
        torch.compiler.reset()  # nothing compiled for the last case's shapes, nor dynamic for two
        functions = {
            "fused": case.fused,
            "fused, reduce-overhead": torch.compile(case.fused, mode="reduce-overhead"),
            "eager": case.plain,
            "compile": torch.compile(case.plain),
            "compile, reduce-overhead": torch.compile(case.plain, mode="reduce-overhead"),
        }
        ops.check(case, {k: f for k, f in functions.items() if "overhead" not in k})
        calls = {k: lambda f=f, case=case: ops.run(case, f) for k, f in functions.items()}
        calls["copy"] = ops.clone_floor(case)
        for function in calls.values():
            seconds(function, 10)
        repeats = max(3, int(0.02 / seconds(calls["fused"], 10)))
        times = {k: [] for k in calls}
        for _ in range(arguments.rounds):
            for k, function in calls.items():
                times[k].append(seconds(function, repeats))
        median = {k: torch.tensor(v).median().item() for k, v in times.items()}
        for k, value in median.items():
            yield (
                f"| {name} | {k} | {value * 1e6:.1f} | {value / median['fused']:.2f} "
                f"| {case.bytes_moved / value / 1e9:.0f} | {median['copy'] / value:.2f} |"
            )
        if median["fused"] > median["compile"]:
            slower.append(f"{name}: slower than torch.compile")
        if median["fused, reduce-overhead"] > median["compile, reduce-overhead"]:
            slower.append(f"{name}: slower than torch.compile with reduce-overhead")
        if name == "head-4x128^3" and median["copy"] / median["fused"] < 0.85:
            slower.append(f"{name}: under 85 % of the copy's bandwidth")
    if slower:
        raise Failed("; ".join(slower))


def crf_speed(rounds: int) -> tuple[list[str], list[str]]:
    """Rows of the gated CRF loss for the table of step_crf, and what is slower than it may be."""
    import gated_crf
    import torch

    rows, slower = [], []
    for name in gated_crf.CASES:
        p, image = crf_inputs(name)
        torch.compiler.reset()
        functions = {"fused": gated_crf.fused, "loop": gated_crf.loop}
        functions |= {
            "windows": gated_crf.windows,
            "windows, compiled": torch.compile(gated_crf.windows),
        }
        gated_crf.check(name, functions, p, image)
        times = {k: [] for k in functions}
        for _ in range(rounds + 1):  # the first is a warm-up
            for k, f in functions.items():
                call = lambda f=f, p=p, image=image: gated_crf.run(f, p, image)  # noqa: E731
                times[k].append(seconds(call, 20 if k == "fused" else 3))
        median = {k: torch.tensor(v[1:]).median().item() for k, v in times.items()}
        for k, value in median.items():
            rows.append(f"| {name} | {k} | {value * 1e6:.1f} | {value / median['fused']:.2f} |")
            if value < median["fused"]:
                slower.append(f"{name}: slower than {k}")
    return rows, slower


def step_crf(arguments: argparse.Namespace) -> Step:
    """Speed and memory of the gated CRF loss; its launches and sanitizers are in their steps."""
    import gated_crf
    import torch

    yield "| case | contender | median us | times fused |"
    yield "|---|---|---|---|"
    rows, slower = crf_speed(arguments.rounds)
    yield from rows
    p, image = (torch.rand(8, 1, 512, 512, device="cuda") for _ in range(2))
    p.requires_grad_()
    gated_crf.run(gated_crf.fused, p, image)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = gated_crf.run(gated_crf.fused, p, image)
    maps = (torch.cuda.max_memory_allocated() - before) / (p.numel() * 4)
    yield ""
    yield f"Peak memory of 8 x 1 x 512^2 rises by {maps:.2f} maps of float32."
    del result
    if maps > 2.05:  # the gradient that forward computes, and its product with the incoming one
        slower.append(f"memory: {maps:.2f} maps, more than two")
    if slower:
        raise Failed("; ".join(slower))


STEPS = {
    "build": step_build,
    "tests": step_tests,
    "sanitizers": step_sanitizers,
    "launches": step_launches,
    "speed": step_speed,
    "crf": step_crf,
}


def facts() -> Step:
    import torch

    driver = call(
        "nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"
    )
    revision = call("git", "describe", "--always", "--dirty").stdout.strip()
    yield f"- {time.strftime('%Y-%m-%d')}, revision {revision or 'unknown'}"
    yield f"- {driver.stdout.strip().splitlines()[0]}; {os.cpu_count()} CPU cores"
    yield f"- Python {platform.python_version()}, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "gpu_check.md")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--rounds", type=int, default=15, help="of the timings")
    arguments = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        sys.exit(f"gpu_check: torch {torch.__version__} sees no CUDA device")
    lines = ["# GPU check", "", "Written by `python benchmarks/gpu_check.py`.", "", *facts()]
    failed = []
    for name in arguments.only:
        lines += ["", f"## {name.capitalize()}", ""]
        print(f"== {name}", flush=True)
        try:
            for line in STEPS[name](arguments):
                print(line, flush=True)
                lines.append(line)
        except Failed as error:
            failed.append(name)
            lines += ["", f"**Failed**: {error}"]
            print(f"FAILED: {error}", flush=True)
        arguments.out.write_text("\n".join(lines) + "\n")
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
