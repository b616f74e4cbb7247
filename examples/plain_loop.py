"""A plain PyTorch loop: a segmentation network from a few labelled pixels per image.

    python examples/plain_loop.py

What goes in: images, a few marked pixels in each (0 background, 1 object, 255 nothing is known),
and some full masks of *other* images, which show what an object looks like. What comes out: a
network that segments new images. The images are phantoms, so nothing is downloaded; one minute on
two cores.
"""

import torch
from accl_harness.data.phantom import generate
from accl_harness.networks import PatchGAN, UNet
from torch.nn.functional import max_pool2d

import accl_ext


def phantoms(count, size, seed):
    """Images [N, 1, H, W] in [-1, 1] and masks [N, 1, H, W] of 0 and 1."""
    images, masks = generate(count, size=size, seed=seed)
    return torch.tensor(images)[:, None] / 127.5 - 1, torch.tensor(masks)[:, None].float()


def scribbles(masks):
    """Labels [N, H, W] as a person would draw them: a line inside the object, one around it."""

    def grown(mask, by):
        return max_pool2d(mask, 2 * by + 1, 1, by)

    labels = torch.full_like(masks, 255, dtype=torch.uint8)
    inside = grown(1 - masks, 3) - grown(1 - masks, 2)
    drawn = inside.amax((2, 3), keepdim=True) > 0  # an object too small for a line is filled
    labels[torch.where(drawn, inside * masks, masks) > 0] = 1
    labels[grown(masks, 8) - grown(masks, 7) > 0] = 0
    return labels[:, 0]


def mean_dice(network, images, masks):
    with torch.no_grad():
        predicted = (network(images) > 0).float()  # a logit above 0 is a probability above 1/2
    overlap = (predicted * masks).sum((1, 2, 3))
    return float((2 * overlap / (predicted + masks).sum((1, 2, 3))).mean())


def main(epochs=30, size=64, count=40):
    torch.manual_seed(0)
    images, masks = phantoms(count, size, seed=0)
    labels = scribbles(masks)  # all that the network is told about these images
    _, references = phantoms(20, size, seed=1)  # masks of other images, for the discriminator
    test_images, test_masks = phantoms(20, size, seed=2)

    # Bounds of the object's size in pixels, from what is known of objects: the reference masks.
    sizes = references.sum((1, 2, 3))
    bounds = torch.stack([0.9 * sizes.min(), 1.1 * sizes.max()])

    # prior: the foreground probability that the untrained network starts with, near the share of
    # the image that the object takes. The discriminator sees masks alone (conditional=False).
    generator = UNet(width=16, depth=6, prior=0.05)
    discriminator = PatchGAN(width=16, conditional=False)
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))

    for epoch in range(epochs):
        for batch in torch.randperm(count).split(2):
            image, label = images[batch], labels[batch]
            reference = references[torch.randint(len(references), (len(batch),))]

            # One read of the logits gives the mask that the discriminator sees and both
            # supervised terms.
            head = accl_ext.segmentation_head(generator(image), label, bounds)

            # The discriminator learns to tell predicted masks from real ones.
            optimizer_d.zero_grad()
            fake = discriminator(image, head.probabilities.detach())
            real = discriminator(image, reference)
            accl_ext.accl_discriminator_loss(fake, real, scale=0.5).backward()
            optimizer_d.step()

            # The segmentation network learns from the labels, the size, the edges of the image, and
            # from the discriminator, whose own weights rest meanwhile.
            optimizer_g.zero_grad()
            discriminator.requires_grad_(False)
            loss = (
                head.partial_ce
                + 0.01 * head.size_penalty
                + 0.1
                * accl_ext.gated_crf_loss(
                    head.probabilities, image, radius=3, kernels=((1.0, 3.0, 0.2),)
                )
                + 0.1 * accl_ext.accl_loss(discriminator(image, head.probabilities))
            )
            loss.backward()
            discriminator.requires_grad_(True)
            optimizer_g.step()
        if epoch % 10 == 9:
            dice = mean_dice(generator.eval(), test_images, test_masks)
            generator.train()
            print(f"epoch {epoch + 1}: Dice of new images {100 * dice:.1f}", flush=True)
    generator.eval()
    return generator, mean_dice(generator, test_images, test_masks)


if __name__ == "__main__":
    main()
