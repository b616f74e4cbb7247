"""Networks of MONAI by name: what they are given, what is refused, and whole runs with one."""

import math

import numpy as np
import pytest
import torch
from accl_harness.config import refuse_idle_options
from accl_harness.data.formats import read_image
from accl_harness.errors import UserError
from accl_harness.evaluation.predict import predict
from accl_harness.experiments.single import run_training
from accl_harness.networks import UNet, build_generator
from accl_harness.run import Run
from accl_harness.training.initial import start_from
from accl_harness.training.session import training_session
from accl_harness.training.state import TrainingState
from small_runs import classes_folder, rows_without_seconds, small_config

pytest.importorskip("monai")

SMALL = {"features": [4, 4, 8, 8, 8, 4]}
BASIC = {"network": "monai:BasicUNet", "network_options": SMALL}


def build(name, size=32, classes=4, **options):
    prior = 0.2 if classes is None else 0.3
    return build_generator(
        small_config(
            network=f"monai:{name}",
            network_options=options,
            size=size,
            classes=classes,
            prior=prior,
        )
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("BasicUNet", SMALL),
        ("BasicUNetPlusPlus", SMALL),  # gives a list
        ("UNet", {"channels": [4, 8], "strides": [2]}),
        ("AttentionUnet", {"channels": [4, 8], "strides": [2]}),
        ("SegResNet", {"init_filters": 8}),
        (
            "DynUNet",  # deep supervision: a stack of outputs in training
            {
                "kernel_size": [3, 3, 3],
                "strides": [1, 2, 2],
                "upsample_kernel_size": [2, 2],
                "filters": [4, 8, 8],
                "deep_supervision": True,
                "deep_supr_num": 1,
            },
        ),
    ],
)
@pytest.mark.parametrize("classes", [None, 4])
def test_a_network_gives_a_logit_for_each_class(name, options, classes):
    network = build(name, classes=classes, **options)
    assert network.training
    for mode in (True, False):
        logits = network.train(mode)(torch.zeros(2, 1, 32, 32))
        assert logits.shape == (2, classes or 1, 32, 32)
    logits.sum().backward()
    assert network.bias.grad is not None


def test_a_network_starts_at_the_prior():
    for classes, wanted in ((None, [0.2]), (4, [0.7, 0.1, 0.1, 0.1])):
        network = build("BasicUNet", classes=classes, **SMALL)
        for parameter in network.network.parameters():
            torch.nn.init.zeros_(parameter)
        logits = network(torch.zeros(1, 1, 32, 32))
        found = logits.sigmoid() if classes is None else logits.softmax(1)
        assert found[0, :, 0, 0].tolist() == pytest.approx(wanted)


def test_the_seed_decides_the_weights_and_the_unet_stays_the_default():
    networks = []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(build("BasicUNet", **SMALL))
    for one, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(one, other)
    assert isinstance(build_generator(small_config()), UNet)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("BasicUNett", SMALL, "MONAI has no network 'BasicUNett'; nearest: .*BasicUNet"),
        ("Nothing4711", {}, "MONAI has no network 'Nothing4711'; nearest"),
        ("BasicUNet", {"feature": [4]}, "BasicUNet has no option 'feature'; it has features, act"),
        ("BasicUNet", {"in_channels": 3}, "network_options: in_channels is set by the data"),
        ("BasicUNet", {"features": [4]}, r"BasicUNet does not work with network_options .*\[4\]"),
        ("DenseNet121", {}, r"gives \(1, 4\) for one image .*no segmentation network"),
        ("FullyConnectedNet", {}, "takes no in_channels and out_channels|does not work"),
    ],
)
def test_what_monai_cannot_do_is_named(name, options, words):
    with pytest.raises(UserError, match=words):
        build(name, **options)


def test_other_names_and_idle_options():
    with pytest.raises(UserError, match="network must be unet or monai:NAME"):
        small_config(network="BasicUNet").check()
    with pytest.raises(UserError, match="network_options go with network monai:NAME"):
        small_config(network_options=SMALL).check()
    with pytest.raises(UserError, match="depth is the U-Net's, and network is monai:BasicUNet"):
        refuse_idle_options(small_config(depth=3, method="fs_ce", **BASIC))


def test_a_run_is_resumed_started_from_and_used(tmp_path):
    data = classes_folder(tmp_path / "data")
    config = small_config(
        method="accl_crf", classes=4, prior=0.2, epochs=2, data=str(data), **BASIC
    )
    whole = run_training(config.replace(out=str(tmp_path / "whole")), quiet=True)
    assert Run(whole).config().network_options == SMALL
    part = config.replace(out=str(tmp_path / "part"))

    class Stop(Exception):
        pass

    def stop(row):
        raise Stop

    with pytest.raises(Stop), training_session(part, resume=False, quiet=True) as session:
        session.train(stop)
    run_training(part, resume=True, quiet=True)
    assert rows_without_seconds(tmp_path / "part") == rows_without_seconds(whole)
    assert math.isfinite(Run(whole).metrics()["dsc"])

    predict(whole, data / "test/images", tmp_path / "out")
    mask = read_image(tmp_path / "out/image_0.png", "mask").array
    assert set(np.unique(mask)) <= {0, 1, 2, 3}

    state = TrainingState.build(config, torch.device("cpu"), None)
    start_from(str(whole), config, state)
    weights = Run(whole).load_checkpoint()["generator"]
    assert all(torch.equal(v, weights[k]) for k, v in state.generator.state_dict().items())
    plain = config.replace(network="unet", network_options=None)
    with pytest.raises(UserError, match="network monai:BasicUNet there, unet here"):
        start_from(str(whole), plain, TrainingState.build(plain, torch.device("cpu"), None))
