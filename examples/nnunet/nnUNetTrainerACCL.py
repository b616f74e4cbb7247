"""An nnU-Net v2 trainer for scribbles: partial cross-entropy, size penalty, gated CRF and ACCL.

nnU-Net keeps everything that it does well: planning, preprocessing, augmentation, inference. Only
the loss changes. The scribbles are ordinary nnU-Net labels; what nobody marked carries nnU-Net's
ignore label. Cases without any ignored pixel are painted in full: their masks are what the
discriminator takes for real, so a few of them are needed among the training cases.

The terms of the loss, and where they look:

- partial cross-entropy: the marked pixels, at every scale of the deep supervision;
- size penalty: an object is no larger than the painted ones;
- gated CRF: neighbours of like grey value get like labels;
- ACCL: a discriminator cannot tell the predicted masks from the painted ones.
"""

import numpy as np
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

import accl_ext

LARGEST_ZOOM = 1.4  # nnU-Net's augmentation enlarges patches by up to this factor along each axis


class nnUNetTrainerACCL(nnUNetTrainer):
    size_weight = 0.01
    crf_weight = 0.3
    accl_weight = 0.1

    def initialize(self):
        if self.is_ddp:
            raise NotImplementedError("nnUNetTrainerACCL trains on one device: leave out -num_gpus")
        if not self.label_manager.has_ignore_label or self.label_manager.has_regions:
            raise ValueError("nnUNetTrainerACCL wants labels with an 'ignore' label and no regions")
        super().initialize()
        patch = self.configuration_manager.patch_size
        foreground_classes = self.label_manager.num_segmentation_heads - 1
        self.discriminator = build_discriminator(foreground_classes, len(patch)).to(self.device)
        self.optimizer_d = torch.optim.Adam(
            self.discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999)
        )
        # sigma_space counts in-plane pixels: a thick slice is a long step.
        spacing = np.array(self.configuration_manager.spacing)[-len(patch) :]
        self.spacing = (spacing / spacing.min()).tolist()

    def _build_loss(self):
        """The data term alone; nnU-Net's validation uses it too."""
        loss = accl_ext.PartialCrossEntropyLoss(ignore_index=self.label_manager.ignore_label)
        if not self.enable_deep_supervision:
            return loss
        weights = np.array([0.5**i for i in range(len(self._get_deep_supervision_scales()))])
        weights[-1] = 0  # nnU-Net leaves the lowest scale out
        return DeepSupervisionWrapper(loss, weights / weights.sum())

    def on_train_start(self):
        super().on_train_start()
        self.references = self._painted_masks()
        # Background: free. Foreground: at most as large as the largest painted object after the
        # zoom. No lower bound, since a patch may cut an object off.
        patch = self.configuration_manager.patch_size
        largest = torch.stack(
            [one_hot(m, self._classes)[1:].flatten(1).sum(1) for m in self.references]
        )
        upper = 1.1 * largest.amax(0).float() * LARGEST_ZOOM ** len(patch)
        self.bounds = torch.full((self._classes, 2), torch.inf, device=self.device)
        self.bounds[1:, 1] = upper.to(self.device)

    @property
    def _classes(self):
        return self.label_manager.num_segmentation_heads

    def _painted_masks(self):
        """Masks of the training cases in which nothing is ignored; slices for a 2-D network."""
        masks = []
        cases, _ = self.get_tr_and_val_datasets()
        for identifier in cases.identifiers:
            segmentation = np.asarray(cases.load_case(identifier)[1][:])[0]  # [z, y, x]
            if (segmentation == self.label_manager.ignore_label).any():
                continue
            # nnU-Net writes -1 outside the body: background.
            mask = torch.from_numpy(np.maximum(segmentation, 0).astype(np.int64))
            flat = len(self.configuration_manager.patch_size) == 2
            masks += [m for m in (mask if flat else [mask]) if m.any()]
        if not masks:
            raise ValueError("no training case is painted in full: ACCL needs a few as references")
        self.print_to_log_file(f"ACCL takes {len(masks)} painted masks for real")
        return masks

    def _draw_references(self, count):
        """[count, C - 1, *patch] of 0 and 1: crops of painted masks, mirrored at random."""
        patch = self.configuration_manager.patch_size
        crops = []
        for i in torch.randint(len(self.references), (count,)).tolist():
            crop = one_hot(random_crop(self.references[i], patch), self._classes)[1:]
            axes = [
                1 + a for a in self.inference_allowed_mirroring_axes or () if torch.rand(()) < 0.5
            ]
            crops.append(crop.flip(axes).float())
        return torch.stack(crops).to(self.device)

    def train_step(self, batch):
        image = batch["data"].to(self.device, non_blocking=True)
        labels = batch["target"]
        labels = [t.to(self.device) for t in (labels if isinstance(labels, list) else [labels])]
        autocast = torch.autocast(self.device.type, enabled=self.device.type == "cuda")
        with autocast:
            outputs = self.network(image)
        if not isinstance(outputs, (list, tuple)):
            outputs = [outputs]

        # One read of the finest logits gives the mask and both supervised terms.
        ignore = self.label_manager.ignore_label
        head = accl_ext.segmentation_head(outputs[0], labels[0], self.bounds, ignore_index=ignore)
        weights = getattr(self.loss, "weight_factors", (1.0,))
        loss = weights[0] * head.partial_ce + self.size_weight * head.size_penalty
        for weight, output, label in zip(weights[1:], outputs[1:], labels[1:], strict=True):
            if weight:
                loss = loss + weight * accl_ext.partial_cross_entropy(
                    output, label, ignore_index=ignore
                )
        # nnU-Net scales images to mean 0 and standard deviation 1; half a standard deviation is an
        # edge. radius and sigma_space count pixels.
        loss = loss + self.crf_weight * accl_ext.gated_crf_loss(
            head.probabilities,
            image,
            radius=3,
            kernels=((1.0, 3.0, 0.5),),
            spacing=self.spacing,
        )

        # The discriminator sees the foreground maps alone, since the painted masks belong to other
        # images. First its own update, then the network is trained through it.
        masks = head.probabilities[:, 1:]
        self.discriminator.requires_grad_(True)
        with autocast:
            fake = self.discriminator(masks.detach())
            real = self.discriminator(self._draw_references(len(masks)).to(masks.dtype))
        loss_d = accl_ext.accl_discriminator_loss(fake, real, scale=0.5)
        self._update(loss_d, self.discriminator, self.optimizer_d)
        self.discriminator.requires_grad_(False)
        with autocast:
            scores = self.discriminator(masks)
        loss = loss + self.accl_weight * accl_ext.accl_loss(scores)
        self._update(loss, self.network, self.optimizer)
        return {"loss": loss.detach().cpu().numpy()}

    def _update(self, loss, network, optimizer):
        """As nnU-Net does it: loss scaling on CUDA, gradients clipped at 12."""
        optimizer.zero_grad(set_to_none=True)
        if self.grad_scaler is None:
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 12)
            optimizer.step()
            return
        self.grad_scaler.scale(loss).backward()
        self.grad_scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(network.parameters(), 12)
        self.grad_scaler.step(optimizer)
        self.grad_scaler.update()

    def save_checkpoint(self, filename):
        super().save_checkpoint(filename)
        state = (self.discriminator.state_dict(), self.optimizer_d.state_dict())
        torch.save(state, filename + ".discriminator")

    def load_checkpoint(self, filename_or_checkpoint):
        super().load_checkpoint(filename_or_checkpoint)
        if isinstance(filename_or_checkpoint, str):
            state = torch.load(filename_or_checkpoint + ".discriminator", map_location=self.device)
            self.discriminator.load_state_dict(state[0])
            self.optimizer_d.load_state_dict(state[1])


class nnUNetTrainerACCL_quick(nnUNetTrainerACCL):
    """Two epochs of ten steps, to see that everything is in place."""

    def initialize(self):
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 10, 2
        super().initialize()


def build_discriminator(channels, axes):
    """A PatchGAN of four convolutions: masks [B, channels, *S] to patch scores."""
    convolution = nn.Conv2d if axes == 2 else nn.Conv3d
    return nn.Sequential(
        convolution(channels, 32, 4, 2, 1),
        nn.LeakyReLU(0.2),
        convolution(32, 64, 4, 2, 1),
        nn.LeakyReLU(0.2),
        convolution(64, 128, 4, 2, 1),
        nn.LeakyReLU(0.2),
        convolution(128, 1, 3, 1, 1),
    )


def one_hot(mask, classes):
    """[*S] class indices to [classes, *S] of 0 and 1."""
    return torch.stack([mask == c for c in range(classes)])


def random_crop(mask, size):
    """A crop of [*size] that holds a random pixel of an object; background beyond the border."""
    place = mask.nonzero()[torch.randint(int((mask != 0).sum()), ())]
    crop = mask.new_zeros(tuple(size))
    source, target = [], []
    for at, n, extent in zip(place.tolist(), size, mask.shape, strict=True):
        # Where the mask is larger than the crop the crop stays inside, else it holds all of it.
        low, high = min(0, extent - n), max(0, extent - n)
        first = int(torch.randint(max(low, at - n + 1), min(high, at) + 1, ()))
        source.append(slice(max(first, 0), min(first + n, extent)))
        target.append(slice(max(-first, 0), min(extent - first, n)))
    crop[tuple(target)] = mask[tuple(source)]
    return crop
