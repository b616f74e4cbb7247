"""A LightningModule that trains two networks: manual optimisation of G and D.

    pip install lightning && python examples/lightning_module.py

G segments, D tells G's masks from real ones. With two optimisers Lightning wants manual
optimisation: the module calls ``manual_backward`` and steps the optimisers itself, and precision,
devices and logging stay Lightning's. The images are phantoms; half a minute on two cores.
"""

import lightning
import torch
from accl_harness.data.phantom import generate
from accl_harness.data.weak import weak_labels
from accl_harness.networks import PatchGAN, UNet
from torch.utils.data import DataLoader, Dataset

import accl_ext


class Phantoms(Dataset):
    """Images [1, H, W] in [-1, 1], labels [H, W], and a reference mask [1, H, W] of another image.

    The labels are 1 on a few pixels in the middle of the object and 255 (unknown) elsewhere.
    """

    def __init__(self, count, size, seed):
        self.images, self.masks = generate(count, size=size, seed=seed)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        image = torch.tensor(self.images[i])[None] / 127.5 - 1
        labels = torch.tensor(weak_labels(self.masks[i]))
        other = int(torch.randint(len(self), ()))  # drawn anew every time
        return image, labels, torch.tensor(self.masks[other])[None].float()


class WeaklySupervised(lightning.LightningModule):
    def __init__(self, bounds, size_weight=0.01, accl_weight=1.0, lr=2e-4):
        super().__init__()
        self.automatic_optimization = False
        self.save_hyperparameters()
        self.generator = UNet(width=16, depth=6, prior=0.05)
        self.discriminator = PatchGAN(width=16, conditional=False)  # sees the mask alone
        self.head = accl_ext.SegmentationHead(bounds)
        self.accl = accl_ext.ACCLLoss()
        self.discriminator_loss = accl_ext.ACCLDiscriminatorLoss(scale=0.5)

    def forward(self, image):
        return self.generator(image)

    def training_step(self, batch, _):
        image, labels, reference = batch
        optimizer_g, optimizer_d = self.optimizers()
        head = self.head(self.generator(image), labels)

        self.toggle_optimizer(optimizer_d)
        fake = self.discriminator(image, head.probabilities.detach())
        loss_d = self.discriminator_loss(fake, self.discriminator(image, reference))
        optimizer_d.zero_grad()
        self.manual_backward(loss_d)
        optimizer_d.step()
        self.untoggle_optimizer(optimizer_d)

        # toggle_optimizer switches off the gradients of D's weights: D only hands them through.
        self.toggle_optimizer(optimizer_g)
        accl = self.accl(self.discriminator(image, head.probabilities))
        weights = self.hparams
        loss = (
            head.partial_ce + weights.size_weight * head.size_penalty + weights.accl_weight * accl
        )
        optimizer_g.zero_grad()
        self.manual_backward(loss)
        optimizer_g.step()
        self.untoggle_optimizer(optimizer_g)

        ratio = head.soft_size.sum() / reference.sum().clamp(min=1)
        self.log_dict(
            {"partial_ce": head.partial_ce, "accl": accl, "loss_d": loss_d, "size_ratio": ratio}
        )

    def configure_optimizers(self):
        return [
            torch.optim.Adam(network.parameters(), lr=self.hparams.lr, betas=(0.5, 0.999))
            for network in (self.generator, self.discriminator)
        ]


def main(epochs=10, size=64, count=40):
    lightning.seed_everything(0, verbose=False)
    data = Phantoms(count, size, seed=0)
    # Bounds of the object's size in pixels, as a pair of numbers.
    sizes = data.masks.sum((1, 2))
    module = WeaklySupervised(bounds=(0.9 * float(sizes.min()), 1.1 * float(sizes.max())))
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="auto",
        devices=1,
        log_every_n_steps=5,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(data, batch_size=2, shuffle=True))
    print({name: round(float(value), 3) for name, value in trainer.callback_metrics.items()})
    return module, trainer


if __name__ == "__main__":
    main()
