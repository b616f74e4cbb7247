"""A volume: 3-D network, anisotropic voxels, a few marked voxels.

    python examples/volume_3d.py

The operators take one to three spatial dimensions, so nothing changes but the shapes: logits are
[B, C, D, H, W], labels [B, D, H, W], soft sizes count voxels. Slices are often thicker than pixels
are wide; the gated CRF takes that as ``spacing``. The volumes are made here; half a minute.
"""

import math

import torch
from monai.networks.nets import BasicUNet
from torch.nn.functional import avg_pool3d

import accl_ext

SPACING = (2.0, 1.0, 1.0)  # size of a voxel in mm: slices are twice as far apart as pixels


def volumes(count, seed, shape=(16, 32, 32)):
    """Bright ellipsoids in noise: images [N, 1, D, H, W] and masks of 0 and 1."""
    random = torch.Generator().manual_seed(seed)
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij"), -1)
    grid = grid * torch.tensor(SPACING)
    middle = torch.tensor(shape) * torch.tensor(SPACING) / 2
    masks = []
    for _ in range(count):
        centre = middle + 4 * torch.randn(3, generator=random)
        radius = 4 + 4 * torch.rand(3, generator=random)
        masks.append((((grid - centre) / radius) ** 2).sum(-1) < 1)
    masks = torch.stack(masks)[:, None].float()
    images = avg_pool3d(masks, 3, 1, 1) + 0.3 * torch.randn(masks.shape, generator=random)
    return images, masks


def marks(masks):
    """Labels [N, D, H, W]: 1 in the middle of the object, 0 in the corners, 255 unknown."""
    labels = torch.full(masks.shape, 255, dtype=torch.uint8)
    core = avg_pool3d(masks, 5, 1, 2)  # highest in the middle
    labels[core >= 0.95 * core.amax((2, 3, 4), keepdim=True)] = 1
    labels[..., :3, :3] = 0
    return labels[:, 0]


def main(steps=60):
    torch.manual_seed(0)
    images, masks = volumes(16, seed=0)
    labels = marks(masks)
    sizes = masks.sum((1, 2, 3, 4))
    head = accl_ext.SegmentationHead((0.9 * float(sizes.min()), 1.1 * float(sizes.max())))
    crf = accl_ext.GatedCRFLoss(radius=2, kernels=((1.0, 2.0, 1.0),), spacing=SPACING)

    network = BasicUNet(
        spatial_dims=3, in_channels=1, out_channels=1, features=(8, 8, 16, 16, 16, 8)
    )
    # The untrained network calls 5 % of the voxels foreground, about the share of the objects.
    torch.nn.init.constant_(network.final_conv.bias, math.log(0.05 / 0.95))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(steps):
        batch = torch.randint(len(images), (2,))
        out = head(network(images[batch]), labels[batch])
        loss = out.partial_ce + 0.01 * out.size_penalty
        loss = loss + 0.1 * crf(out.probabilities, images[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    new_images, new_masks = volumes(8, seed=1)
    with torch.no_grad():
        predicted = (network.eval()(new_images) > 0).float()
    overlap = (predicted * new_masks).sum((1, 2, 3, 4))
    dice = 2 * overlap / (predicted + new_masks).sum((1, 2, 3, 4))
    print(
        f"labelled {100 * float((labels != 255).float().mean()):.1f} % of the voxels; "
        f"Dice of new volumes {100 * float(dice.mean()):.1f}"
    )
    return float(dice.mean())


if __name__ == "__main__":
    main()
