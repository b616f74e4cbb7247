"""A MONAI pipeline: MONAI's transforms, network, trainer and metric, with our loss.

    pip install monai pytorch-ignite && python examples/monai_pipeline.py

The loss is an ordinary ``loss_function(predictions, labels)``, so it fits wherever MONAI takes one:
here in ``SupervisedTrainer``. It puts the partial cross-entropy on the labelled pixels, the size
penalty on the soft size, and the gated CRF on the image, which rides along as the labels' first
channel. The images are phantoms; half a minute on two cores.
"""

import torch
from accl_harness.data.phantom import generate
from accl_harness.data.weak import weak_labels
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer
from monai.metrics import DiceMetric
from monai.networks.nets import BasicUNet
from monai.transforms import (
    Compose,
    ConcatItemsd,
    EnsureChannelFirstd,
    EnsureTyped,
    RandFlipd,
    ScaleIntensityRanged,
)
from monai.utils import set_determinism

import accl_ext


class WeakLoss(torch.nn.Module):
    """Logits [B, 1, H, W] and a target [B, 2, H, W] of image and labels to the loss."""

    def __init__(self, bounds, size_weight=0.01, crf_weight=0.1):
        super().__init__()
        self.head = accl_ext.SegmentationHead(bounds)
        self.crf = accl_ext.GatedCRFLoss(radius=3, kernels=((1.0, 3.0, 0.1),))
        self.size_weight, self.crf_weight = size_weight, crf_weight

    def forward(self, logits, target):
        # MONAI's images know where they come from (MetaTensor); the losses want plain tensors.
        logits, target = logits.as_subclass(torch.Tensor), target.as_subclass(torch.Tensor)
        image, labels = target[:, :1], target[:, 1:].to(torch.uint8)
        head = self.head(logits, labels)
        crf = self.crf(head.probabilities, image)
        return head.partial_ce + self.size_weight * head.size_penalty + self.crf_weight * crf


def main(epochs=10, size=64, count=40):
    set_determinism(0)
    images, masks = generate(count, size=size, seed=0)
    data = [
        {"image": image, "label": weak_labels(mask)}  # 1 in the object's middle, 255 unknown
        for image, mask in zip(images, masks, strict=True)
    ]
    transforms = Compose(
        [
            EnsureChannelFirstd(("image", "label"), channel_dim="no_channel"),
            ScaleIntensityRanged("image", 0, 255, 0.0, 1.0),
            RandFlipd(("image", "label"), prob=0.5, spatial_axis=1),
            # Rotation or zoom of the labels needs mode="nearest" and padding with 255.
            EnsureTyped(("image", "label")),
            ConcatItemsd(("image", "label"), "label"),
        ]
    )
    loader = DataLoader(Dataset(data, transforms), batch_size=2, shuffle=True)

    sizes = masks.sum((1, 2))
    network = BasicUNet(
        spatial_dims=2, in_channels=1, out_channels=1, features=(16, 16, 32, 64, 64, 16)
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = SupervisedTrainer(
        device=device,
        max_epochs=epochs,
        train_data_loader=loader,
        network=network.to(device),
        optimizer=torch.optim.Adam(network.parameters(), lr=1e-3),
        loss_function=WeakLoss((0.9 * float(sizes.min()), 1.1 * float(sizes.max()))).to(device),
        inferer=SimpleInferer(),
        amp=device.type == "cuda",  # the losses take half precision as it comes
    )
    trainer.run()

    new_images, new_masks = generate(20, size=size, seed=2)
    metric = DiceMetric()
    network.eval()
    with torch.no_grad():
        logits = network(torch.tensor(new_images, device=device)[:, None] / 255)
    metric(logits > 0, torch.tensor(new_masks, device=device)[:, None])
    dice = float(metric.aggregate())
    print(f"Dice of new images {100 * dice:.1f}")
    return dice


if __name__ == "__main__":
    main()
