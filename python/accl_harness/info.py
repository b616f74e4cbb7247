"""``accl info``: versions, build and devices, in plain lines for a bug report."""

from __future__ import annotations

import os
import platform

import torch

import accl_ext

from .training.ops import build_info
from .versions import versions


def information() -> str:
    """One fact a line: ``name: value``."""
    facts = {"accl_ext": accl_ext.__version__}
    facts |= {f"accl_ext build {key}": _shown(v) for key, v in build_info().items()}
    facts |= {
        "torch": torch.__version__,
        "torch CUDA": torch.version.cuda or "none",
        "cuDNN": torch.backends.cudnn.version() or "none",
        "Python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "processor capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "torch threads": torch.get_num_threads(),
    }
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        memory = device.total_memory / 2**30
        facts[f"GPU {index}"] = f"{device.name}, {device.major}.{device.minor}, {memory:.0f} GiB"
    if not torch.cuda.is_available():
        facts["GPU"] = "none that torch can use"
    facts |= {name: found for name, found in versions().items() if name not in {*facts, "python"}}
    return "\n".join(f"{name}: {value}" for name, value in facts.items())


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            models = [line.split(":", 1)[1].strip() for line in file if "model name" in line]
        return models[0]
    except (OSError, IndexError):
        return platform.processor() or "unknown"
