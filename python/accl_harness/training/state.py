"""What changes during a training: networks, optimisers, random numbers; saved and restored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..config import TrainConfig
from ..networks import build_discriminator, build_generator
from .batches import stream_seed
from .runtime import network_dtype

MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
"""Of SGD."""


@dataclass
class TrainingState:
    """Networks and optimisers; D and its optimiser are None where ACCL is off."""

    generator: nn.Module
    discriminator: nn.Module | None
    optimizer_g: torch.optim.Optimizer
    optimizer_d: torch.optim.Optimizer | None
    scaler: torch.amp.GradScaler
    terms: dict[str, nn.Module] = field(default_factory=dict)
    """Those with a state of their own, by name."""

    @classmethod
    def build(
        cls, config: TrainConfig, device: torch.device, scaler: torch.amp.GradScaler
    ) -> TrainingState:
        """Fresh networks; the seed alone decides their weights.

        G is drawn before D, so that all methods of one seed start from the same G.
        """
        torch.manual_seed(stream_seed(config.seed, "weights"))
        form = {"device": device, "dtype": network_dtype(config)}
        # Channels last is what tensor cores read. On the CPU it would cost G a transposition of
        # every gradient of a transposed convolution's weight, which oneDNN gives contiguous.
        generator_form = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        generator = build_generator(config).to(**form, memory_format=generator_form)
        discriminator = None
        if config.accl_weight > 0:
            discriminator = build_discriminator(config)
            discriminator = discriminator.to(**form, memory_format=torch.channels_last)
        optimizer_g = adam(generator, config, config.lr)
        if config.optimizer == "sgd":
            optimizer_g = torch.optim.SGD(
                generator.parameters(),
                config.lr,
                momentum=MOMENTUM,
                weight_decay=WEIGHT_DECAY,
            )
        optimizer_d = None
        if discriminator is not None:
            optimizer_d = adam(discriminator, config, config.discriminator_rate)
        return cls(
            generator,
            discriminator,
            optimizer_g,
            optimizer_d,
            scaler,
        )

    def _parts(self) -> dict[str, Any]:
        parts = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "optimizer_g": self.optimizer_g,
            "optimizer_d": self.optimizer_d,
            "scaler": self.scaler,
            **self.terms,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def state_dict(self) -> dict[str, Any]:
        """Everything that a later process needs to go on as if it were this one."""
        random = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            random["cuda"] = torch.cuda.get_rng_state()
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        return {**parts, "random": random}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["random"]["cpu"].cpu())
        if torch.cuda.is_available() and "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"].cpu())

    def set_learning_rates(self, rate_g: float, rate_d: float) -> None:
        """Those of the next steps."""
        for optimizer, rate in ((self.optimizer_g, rate_g), (self.optimizer_d, rate_d)):
            for group in optimizer.param_groups if optimizer is not None else ():
                if isinstance(group["lr"], torch.Tensor):
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate


def adam(network: nn.Module, config: TrainConfig, rate: float) -> torch.optim.Adam:
    """Adam in one kernel for all parameters; for a CUDA graph the rate lies on the device."""
    lr: Any = rate
    if config.cuda_graph:
        lr = torch.tensor(rate, device=next(network.parameters()).device)
    return torch.optim.Adam(
        network.parameters(), lr, config.betas, fused=True, capturable=config.cuda_graph
    )
