"""Device, precision and processes of a training, by Lightning Fabric."""

from __future__ import annotations

import atexit
import os

import torch
import torch.distributed
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from torch import nn

from ..config import TrainConfig
from ..errors import UserError

_PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed", "64": "64-true"}


def launch(config: TrainConfig) -> Fabric:
    """Fabric for the config's device, precision and processes; these exist when it returns.

    Raises:
        UserError: CUDA is asked for and absent, float16 or a CUDA graph without CUDA, or a batch
            smaller than the number of processes.
    """
    accelerator = config.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    check_device("accelerator", accelerator)
    if config.precision == "16" and accelerator != "cuda":
        raise UserError("precision 16 needs CUDA; use bf16 or 32 on the CPU")
    if config.cuda_graph and accelerator != "cuda":
        raise UserError("cuda_graph needs a CUDA device")
    # Under torchrun each process is there already; elsewhere Fabric starts them.
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", config.devices))
    processes = int(os.environ.get("WORLD_SIZE", devices))
    if config.batch_size < processes:
        raise UserError(
            f"batch_size is over all processes: {processes} of them need at least {processes}, "
            f"got {config.batch_size}"
        )
    if config.cuda_graph and processes > 1:
        raise UserError(f"cuda_graph is for one process, got {processes}")
    if processes > 1 and "WORLD_SIZE" in os.environ and "RANK" not in os.environ:
        raise UserError(
            f"WORLD_SIZE is {processes} but RANK is not set: start the processes with torchrun, "
            "or unset WORLD_SIZE"
        )
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=max(1, processes // devices),
        strategy="ddp" if processes > 1 else "auto",
        precision=_PRECISIONS[config.precision],
        plugins=_cluster(processes),
    )
    fabric.launch()
    if processes > 1:
        atexit.register(_leave_processes)
    # Every step has the same shapes, so it pays to try cuDNN's algorithms once.
    torch.backends.cudnn.benchmark = accelerator == "cuda"
    return fabric


def _cluster(processes: int) -> LightningEnvironment | None:
    """None lets Fabric ask torchrun or the scheduler which process this is.

    It asks in vain, or refuses the job's options, where the scheduler did not start the processes:
    a batch script of SLURM that calls ``accl`` without ``srun``, or one process alone.
    """
    by_srun = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1
    told = "SLURM_NTASKS" not in os.environ or by_srun or TorchElasticEnvironment.detect()
    return None if processes > 1 and told else LightningEnvironment()


def _leave_processes() -> None:
    """Join gloo's threads while the interpreter lives, since one that needs it later may abort.

    Fabric does so for NCCL alone.
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def check_device(option: str, device: str) -> None:
    """Refuse CUDA where there is none.

    Raises:
        UserError: naming the option.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(f"{option} is cuda, but torch finds no CUDA device")


def network_dtype(config: TrainConfig) -> torch.dtype:
    """Type of the weights: mixed precision casts as it computes, so only 64 differs."""
    return torch.float64 if config.precision == "64" else torch.float32


def loss_scaler(config: TrainConfig, fabric: Fabric) -> torch.amp.GradScaler:
    """Scales the loss for float16; does nothing for other precisions."""
    return torch.amp.GradScaler(fabric.device.type, enabled=config.precision == "16")


def gradient_sum(fabric: Fabric):
    """Function that adds up a network's gradients over the processes.

    Two networks updated in turn, one of them frozen in the other's pass, do not fit
    ``DistributedDataParallel``'s hooks; one reduction of the flattened gradients does.
    """

    def add_up(network: nn.Module) -> None:
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def alone(network: nn.Module) -> None:
        pass

    return add_up if fabric.world_size > 1 else alone


def total(fabric: Fabric):
    """Function that adds a tensor up over the processes, in place."""

    def add_up(value: torch.Tensor) -> torch.Tensor:
        torch.distributed.all_reduce(value)
        return value

    return add_up if fabric.world_size > 1 else lambda value: value
