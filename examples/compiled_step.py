"""torch.compile of the whole step: network, losses and backward in one compiled function.

    python examples/compiled_step.py

The operators are known to the compiler (fake kernels, autograd), so ``fullgraph=True`` holds: no
graph break between the network and the losses. Bounds are a tensor: numbers that change would
compile anew. The optimiser's step is compiled too, with its learning rate as a tensor. The first
step compiles, for about a minute.
"""

import time

import torch
from accl_harness.data.phantom import generate
from accl_harness.data.weak import weak_labels
from torch import nn

import accl_ext


def build_network():
    def block(inputs, outputs):
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1), nn.InstanceNorm2d(outputs), nn.LeakyReLU(0.2)
        )

    return nn.Sequential(block(1, 16), block(16, 16), block(16, 16), nn.Conv2d(16, 1, 1))


def main(steps=10, size=64, backend="inductor"):
    torch.manual_seed(0)
    images, masks = generate(8, size=size)
    labels = torch.stack([torch.tensor(weak_labels(mask)) for mask in masks])
    images = torch.tensor(images)[:, None] / 127.5 - 1
    sizes = torch.tensor(masks).sum((1, 2)).float()
    bounds = torch.stack([0.9 * sizes.min(), 1.1 * sizes.max()])

    generator = build_network()
    discriminator = nn.Sequential(
        nn.Conv2d(2, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 1, 4, 2, 1)
    )
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=torch.tensor(1e-3))
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=torch.tensor(1e-3))

    @torch.compile(fullgraph=True, backend=backend)
    def generator_loss(image, label):
        head = accl_ext.segmentation_head(generator(image), label, bounds)
        scores = discriminator(torch.cat([image, head.probabilities], 1))
        loss = head.partial_ce + 0.01 * head.size_penalty + 0.1 * accl_ext.accl_loss(scores)
        return loss, head.probabilities.detach()

    @torch.compile(fullgraph=True, backend=backend)
    def discriminator_loss(image, fake, real):
        fake_scores = discriminator(torch.cat([image, fake], 1))
        real_scores = discriminator(torch.cat([image, real], 1))
        return accl_ext.accl_discriminator_loss(fake_scores, real_scores, scale=0.5)

    @torch.compile(backend=backend)
    def update(optimizer):
        optimizer.step()

    masks = torch.tensor(masks)[:, None].float()
    losses = []
    for step in range(steps):
        start = time.perf_counter()
        batch = torch.randint(len(images), (4,))
        loss, fake = generator_loss(images[batch], labels[batch])
        optimizer_g.zero_grad()
        loss.backward()
        update(optimizer_g)
        # G's pass went through D and left gradients there; they are thrown away here.
        optimizer_d.zero_grad()
        discriminator_loss(images[batch], fake, masks[batch.roll(1)]).backward()
        update(optimizer_d)
        losses.append(float(loss))
        print(f"step {step}: loss {losses[-1]:.3f}, {time.perf_counter() - start:.2f} s")
    return losses


if __name__ == "__main__":
    main()
