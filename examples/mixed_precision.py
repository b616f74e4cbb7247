"""Mixed precision: autocast and GradScaler with two optimisers.

    python examples/mixed_precision.py

The networks run in half precision. The losses take the half-precision logits as they come and sum
in float32: the soft size of a bright 256 x 256 image is 65536, which float16 cannot hold. So the
losses need no cast, inside autocast or outside. float16 wants a GradScaler, one scale for both
optimisers; bfloat16 does without. A few seconds.
"""

import torch
from accl_harness.data.phantom import generate
from accl_harness.data.weak import weak_labels
from monai.networks.nets import BasicUNet, PatchDiscriminator

import accl_ext


def main(steps=10, size=64, dtype=None, device=None):
    torch.manual_seed(0)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or (torch.float16 if device == "cuda" else torch.bfloat16)
    images, masks = generate(8, size=size)
    labels = torch.stack([torch.tensor(weak_labels(mask)) for mask in masks]).to(device)
    images = (torch.tensor(images)[:, None] / 127.5 - 1).to(device)
    masks = torch.tensor(masks)[:, None].float().to(device)
    sizes = masks.sum((1, 2, 3))
    bounds = torch.stack([0.9 * sizes.min(), 1.1 * sizes.max()])  # float32, also beside half logits

    generator = BasicUNet(2, in_channels=1, out_channels=1, features=(16, 16, 32, 64, 64, 16))
    discriminator = PatchDiscriminator(2, channels=16, in_channels=2, num_layers_d=2)
    generator, discriminator = generator.to(device), discriminator.to(device)
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)

    for step in range(steps):
        batch = torch.randint(len(images), (2,))
        image, reference = images[batch], masks[batch.roll(1)]
        with torch.autocast(device, dtype=dtype):
            logits = generator(image)
            head = accl_ext.segmentation_head(logits, labels[batch], bounds)
            fake = discriminator(torch.cat([image, head.probabilities.detach()], 1))[-1]
            real = discriminator(torch.cat([image, reference], 1))[-1]
            loss_d = accl_ext.accl_discriminator_loss(fake, real, scale=0.5)
        optimizer_d.zero_grad()
        scaler.scale(loss_d).backward()
        scaler.step(optimizer_d)

        discriminator.requires_grad_(False)
        with torch.autocast(device, dtype=dtype):
            scores = discriminator(torch.cat([image, head.probabilities], 1))[-1]
            accl = accl_ext.accl_loss(scores)
        loss = head.partial_ce + 0.01 * head.size_penalty + accl
        optimizer_g.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer_g)
        discriminator.requires_grad_(True)
        scaler.update()  # once a step, after both optimisers
        print(f"step {step}: logits {logits.dtype}, loss {loss.dtype} {loss.item():.3f}")
    return logits.dtype, loss


if __name__ == "__main__":
    main()
