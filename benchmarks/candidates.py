"""Changes of the training that were measured and kept out; docs/results_log.md has the figures.

    python benchmarks/candidates.py NAME --data DIR --method accl_crf --validation 0.2 --out RUN

The words after NAME are those of ``accl train``. NAME is one of:

- ``none``: no change, to compare with.
- ``spectral``: spectral norm on every convolution of D.
- ``r1``: R1 penalty on D (Mescheder et al. 2018), weight 10, on the mean score of a mask.
- ``number``: D gives one number per mask, the mean of its patch scores.
- ``scales``: a second D sees the masks at half the resolution; both have the same weight.
- ``average``: an exponential average of G's weights, decay 0.998, is scored and saved at the end.
- ``wide-prior``: the size prior costs nothing within 1.5 standard deviations of the masks' sizes.
"""

import copy
import sys

import torch
from accl_harness import cli
from accl_harness.networks.patchgan import PatchGAN
from accl_harness.terms.accl import ACCL
from accl_harness.terms.size_prior import SizePrior
from accl_harness.training import state
from accl_harness.training.loop import Trainer
from accl_harness.training.step import TrainingStep
from torch import nn
from torch.nn import functional as F

R1_WEIGHT = 10.0
DECAY = 0.998
FREE_DEVIATIONS = 1.5


def changed_discriminator(change):
    """Let every new D be ``change(D)``."""
    build = state.build_discriminator
    state.build_discriminator = lambda config: change(build(config), config)


def spectral():
    def with_norm(network, config):
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.utils.parametrizations.spectral_norm(module)
        return network

    changed_discriminator(with_norm)


class OneNumber(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images, masks):
        return self.network(images, masks).mean((2, 3), keepdim=True)


def number():
    changed_discriminator(lambda network, config: OneNumber(network))


class TwoScales(nn.Module):
    """One row of scores, in which both resolutions have the same weight."""

    def __init__(self, fine, coarse):
        super().__init__()
        self.fine, self.coarse = fine, coarse

    def forward(self, images, masks):
        fine = self.fine(images, masks).flatten(2)
        coarse = self.coarse(F.avg_pool2d(images, 2), F.avg_pool2d(masks, 2)).flatten(2)
        coarse = F.interpolate(coarse, size=fine.shape[2], mode="nearest")
        return torch.cat([fine, coarse], 2).unsqueeze(2)


def scales():
    def two(network, config):
        sees = (config.width, config.norm, config.sees_image, config.foregrounds)
        return TwoScales(network, PatchGAN(*sees))

    changed_discriminator(two)


def r1():
    update, update_d = TrainingStep.update, ACCL.update_discriminator

    def keep_the_pair(self, passed):
        passed.step.real = passed.batch.images, self.noisy(passed.batch.references)
        return update_d(self, passed)

    def with_penalty(self, network, optimizer, loss):
        if network is self.discriminator:
            images, masks = self.real
            masks = masks.detach().requires_grad_(True)
            scores = network(images, masks).flatten(1).mean(1).sum()
            (slope,) = torch.autograd.grad(scores, masks, create_graph=True)
            loss = loss + R1_WEIGHT / 2 * slope.square().flatten(1).sum(1).mean()
        update(self, network, optimizer, loss)

    ACCL.update_discriminator, TrainingStep.update = keep_the_pair, with_penalty


def average():
    update, row = TrainingStep.update, Trainer._row

    def and_average(self, network, optimizer, loss):
        update(self, network, optimizer, loss)
        if network is not self.generator:
            return
        if not hasattr(self, "average"):
            self.average = copy.deepcopy(network)
        with torch.no_grad():
            new = network.state_dict()
            for name, old in self.average.state_dict().items():
                if old.is_floating_point():
                    old.lerp_(new[name], 1 - DECAY)
                else:
                    old.copy_(new[name])

    def of_the_average(self, rate):
        if self.epoch == self.config.epochs:
            self.state.generator.load_state_dict(self.step.average.state_dict())
        return row(self, rate)

    TrainingStep.update, Trainer._row = and_average, of_the_average


def wide_prior():
    def penalty(self, sizes, present):
        costs = []
        for index, (mean, deviation) in enumerate(zip(self.means, self.deviations, strict=True)):
            if mean is None:
                costs.append(torch.zeros_like(sizes[:, index]))
                continue
            off = ((torch.log1p(sizes[:, index]) - mean) / deviation).abs() - FREE_DEVIATIONS
            costs.append(torch.where(present[:, index], 0.5 * off.clamp(min=0).square(), 0.0))
        return torch.stack(costs).mean()

    SizePrior.penalty = penalty


CANDIDATES = {
    "none": lambda: None,
    "spectral": spectral,
    "r1": r1,
    "number": number,
    "scales": scales,
    "average": average,
    "wide-prior": wide_prior,
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in CANDIDATES:
        sys.exit(f"name one of {', '.join(CANDIDATES)}, got {' '.join(sys.argv[1:2]) or 'nothing'}")
    CANDIDATES[sys.argv[1]]()
    sys.exit(cli.main(["train", *sys.argv[2:]]))
