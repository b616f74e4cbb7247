"""G and D have pix2pix's shape, size and start; sizes that cannot be halved are refused."""

import math

import pytest
import torch
from accl_harness.config import TrainConfig
from accl_harness.errors import UserError
from accl_harness.networks import PatchGAN, UNet, blocks, build_discriminator, sizes_that_work
from accl_harness.networks.unet import check_size, depth_for
from torch import nn


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def biased_convolutions(network):
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    return [m.bias is not None for m in convolutions]


def test_parameter_counts_are_those_of_pix2pix():
    generator = UNet()
    assert parameters(generator) == 54_407_809
    assert parameters(PatchGAN()) == 2_764_609


def test_output_shapes():
    images = torch.zeros(2, 1, 64, 64)
    assert UNet(width=2, depth=6)(images).shape == (2, 1, 64, 64)
    assert PatchGAN(width=2)(images, images).shape == (2, 1, 6, 6)


def test_discriminator_scores_30_x_30_patches_of_a_256_image():
    images = torch.zeros(1, 1, 256, 256)
    assert PatchGAN(width=1)(images, images).shape == (1, 1, 30, 30)


def test_an_unconditional_discriminator_sees_the_mask_alone():
    network = PatchGAN(width=2, conditional=False).eval()
    masks, first, second = torch.rand(3, 1, 1, 64, 64)
    assert torch.equal(network(first, masks), network(second, masks))
    assert not torch.equal(network(first, masks), network(first, second))
    assert parameters(PatchGAN(2)) - parameters(network) == 2 * 4 * 4
    assert build_discriminator(TrainConfig(method="unpaired_accl")).conditional
    assert not build_discriminator(TrainConfig(conditional=False)).conditional
    both = PatchGAN(width=2).eval()
    assert not torch.equal(both(first, masks), both(second, masks))


def test_only_the_outer_layers_have_biases_with_batch_norm():
    assert biased_convolutions(UNet(2, 5)) == [False] * 5 + [True] + [False] * 4
    assert biased_convolutions(PatchGAN(2)) == [True, False, False, False, True]
    assert all(biased_convolutions(UNet(2, 5, norm="instance")))
    assert all(biased_convolutions(PatchGAN(2, norm="none")))


def test_less_depth_drops_the_widest_blocks_from_the_middle():
    def encoder_channels(depth):
        return [
            level[-2 if len(level) == 3 else -1].out_channels for level in UNet(1, depth).encoder
        ]

    assert encoder_channels(8) == [1, 2, 4, 8, 8, 8, 8, 8]
    assert encoder_channels(6) == [1, 2, 4, 8, 8, 8]
    assert encoder_channels(4) == [1, 2, 4, 8]


@pytest.mark.parametrize(("depth", "levels"), [(8, [4, 5, 6]), (6, [4]), (5, [])])
def test_dropout_sits_next_to_the_innermost(depth, levels):
    decoder = UNet(1, depth).decoder
    found = [i for i, up in enumerate(decoder) if any(isinstance(m, nn.Dropout) for m in up)]
    assert found == levels


def test_norms_leave_out_the_outermost_and_the_innermost_convolution():
    def normed(levels):
        return [any(isinstance(m, nn.BatchNorm2d) for m in level) for level in levels]

    network = UNet(1, 5)
    assert normed(network.encoder) == [False, True, True, True, False]
    assert normed(network.decoder) == [False, True, True, True, True]


def test_initial_weights_are_normal_with_deviation_002():
    torch.manual_seed(0)
    network = UNet(16, 5)
    weight = network.encoder[4][-1].weight
    assert weight.mean().item() == pytest.approx(0, abs=1e-3)
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    scales = torch.cat([m.weight for m in network.modules() if isinstance(m, nn.BatchNorm2d)])
    assert scales.mean().item() == pytest.approx(1, abs=0.01)
    assert scales.std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("prior", [0.5, 0.02])
def test_prior_is_the_initial_foreground_probability(prior):
    torch.manual_seed(0)
    network = UNet(4, 4, prior=prior)
    assert network.decoder[0][-1].bias.item() == pytest.approx(math.log(prior / (1 - prior)))
    probabilities = network(torch.randn(1, 1, 32, 32)).sigmoid()
    assert probabilities.median().item() == pytest.approx(prior, rel=0.2)


@pytest.mark.parametrize("prior", [0.0, 1.0, -1.0])
def test_prior_outside_0_and_1_is_refused(prior):
    with pytest.raises(UserError, match="prior must lie between 0 and 1"):
        UNet(1, 4, prior=prior)


def test_batch_norm_tests_with_the_statistics_of_each_image():
    torch.manual_seed(0)
    network = UNet(4, 4, dropout=0)
    images = torch.randn(3, 1, 32, 32)
    alone = torch.cat([network.train()(image[None]) for image in images])
    network.eval()
    torch.testing.assert_close(network(images), alone)
    for module in network.modules():
        module.test_norm = "running"
    assert not torch.allclose(network(images), alone)


def test_sizes_that_cannot_be_halved_are_refused_with_those_that_can():
    assert depth_for(256) == 8
    assert depth_for(96) == 5
    assert sizes_that_work(100, 5) == [96, 128]
    with pytest.raises(UserError, match="size 100 cannot be halved 5 times: use size 96 or 128"):
        check_size(100, 5)
    with pytest.raises(UserError, match="use size 96 or 100, or pad: true"):
        check_size(98, 2)  # no smaller depth is left
    check_size(96, 5)


def test_pad_takes_any_size_and_gives_it_back():
    network = UNet(2, 4, pad=True)
    assert network(torch.zeros(1, 1, 37, 50)).shape == (1, 1, 37, 50)


def test_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm must be one of batch, instance, none, got 'group'"):
        UNet(1, 4, norm="group")


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "make",
    [
        lambda: blocks.DownConv(5, 3, bias=False),
        lambda: blocks.DownConv(5, 3, bias=True),
        lambda: blocks.UpConv(5, 3, bias=False),
        lambda: blocks.UpConv(5, 3, bias=True),
        lambda: blocks.UpConv(5, 1, bias=True),
        lambda: blocks.ScoreConv(5),
    ],
)
def test_matrix_product_of_a_convolution_equals_the_convolution(monkeypatch, make, batch, form):
    layer = make().double().to(memory_format=form)
    x = torch.randn(batch, 5, 4, 6, dtype=torch.float64).to(memory_format=form)
    results = []
    for as_product in (False, True):
        monkeypatch.setattr(blocks, "_as_product", lambda *_, chosen=as_product, **__: chosen)
        image = x.clone().requires_grad_()
        y = layer(image)
        layer.zero_grad()
        (y**2).sum().backward()
        results.append([y, image.grad, *(p.grad.clone() for p in layer.parameters())])
    for product, convolution in zip(*results, strict=True):
        torch.testing.assert_close(product, convolution)


def test_few_positions_and_a_single_output_are_matrix_products_on_the_cpu():
    x = torch.zeros(1)
    assert blocks._as_product(x, positions=64)
    assert blocks._as_product(x, positions=65, single=True)
    assert not blocks._as_product(x, positions=65)
    assert not blocks._as_product(x.to("meta"), positions=1, single=True)
