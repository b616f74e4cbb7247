"""The options of reading data from the command line to the files and back."""

import json
import shlex

import h5py
import numpy as np
import pytest
from accl_harness.cli import main
from accl_harness.config import make_config
from accl_harness.config_file import load_config, save_config
from accl_harness.data.formats import read_image
from accl_harness.data.options import WeakOptions
from accl_harness.errors import UserError

SMALL = "--size 32 --width 2 --epochs 1 --backend reference --accelerator cpu --prior 0.9"


def run(line):
    return main(shlex.split(line))


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Two volumes a split, slices first, of four classes; masks named after their images."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    classes = np.zeros((4, 48, 40), np.uint8)
    classes[1:, 6:30, 8:30] = 1
    classes[1:, 10:20, 12:20] = 3
    weak = np.full_like(classes, 255)
    weak[:, 12:14] = classes[:, 12:14]
    for split in ("train", "test"):
        for kind, suffix, array in (
            ("images", "", None),
            ("masks", "_gt", classes),
            ("weak", "", weak),
        ):
            (tmp_path / "data" / split / kind).mkdir(parents=True)
            for i in range(2):
                path = tmp_path / "data" / split / kind / f"v{i}{suffix}.h5"
                with h5py.File(path, "w") as file:
                    noise = rng.integers(0, 20, classes.shape)
                    file["data"] = 60.0 * classes + noise if array is None else array
    return tmp_path / "data"


def test_options_from_training_to_prediction(data, capsys):
    options = "--mask-value 3 --mask-suffix _gt --weak.foreground 3 --weak.background '[0, 1]'"
    assert run(f"train --data data --method weak_ce {SMALL} {options} --out run") == 0
    told = capsys.readouterr().err
    assert told.count("accl: warning: ") == 5  # images, masks, labels; images, masks
    assert "v0.h5 (and 1 more): 4 x 48 x 40: the first axis is taken for that of the slices" in told
    config = load_config(data.parent / "run/config.yaml")
    assert (config.mask_value, config.mask_suffix, config.slices) == (3, "_gt", "auto")
    assert config.weak == WeakOptions(foreground=3, background=(0, 1))
    metrics = json.loads((data.parent / "run/metrics.json").read_text())
    assert len(metrics["dsc_per_image"]) == 8
    # The same options again are the same run, others are not.
    assert run(f"train --data data --method weak_ce {SMALL} {options} --out run --resume") == 0

    assert run("evaluate run --out scores --slices first") == 0
    again = json.loads((data.parent / "scores/metrics.json").read_text())
    assert again["dsc_per_image"] == pytest.approx(metrics["dsc_per_image"])
    assert run("evaluate run --data data --mask-value 1 --out others --slices first") == 0
    others = json.loads((data.parent / "others/metrics.json").read_text())
    assert others["dsc_per_image"] != pytest.approx(metrics["dsc_per_image"])
    assert run("predict run --images data/test/images --out masks --slices first") == 0
    assert read_image(data.parent / "masks/v1.h5", slices="first").layout.shape == (4, 48, 40)


def test_slices_last_on_purpose(data, capsys):
    options = "--mask-value 3 --mask-suffix _gt --slices last --weak.strategy erosion"
    assert run(f"train --data data --method partial_ce {SMALL} {options} --out run") == 0
    assert "accl: warning" not in capsys.readouterr().err
    metrics = json.loads((data.parent / "run/metrics.json").read_text())
    assert len(metrics["dsc_per_image"]) == 2 * 40


def test_weaken_and_references_of_a_class(data, capsys):
    line = "data/train/masks {} --mask-value 3 --slices first"
    assert run("weaken " + line.format("weak") + " --iterations 1") == 0
    assert "v0_gt: 144" in capsys.readouterr().out  # (10 - 2) * (8 - 2), three times
    assert run("references " + line.format("bank") + " --n 2") == 0
    assert len(list((data.parent / "bank").glob("*.png"))) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--mask-value 3 --mask-threshold 2", "mask_threshold and mask_value both choose"),
        ("--mask-value x", "--mask-value: cannot be x"),
        ("--slices middle", "--slices: wanted 'auto' or 'first' or 'last', got middle"),
        ("--weak.background '[1]'", "weak.background and weak.foreground are both 1"),
    ],
)
def test_options_that_cannot_be(data, capsys, options, words):
    assert run(f"train --data data --method weak_ce {SMALL} {options} --out run") == 2
    assert words in capsys.readouterr().err


def test_a_config_keeps_what_is_background(tmp_path):
    for background in (None, 2, (1, 2)):
        config = make_config(weak=WeakOptions(foreground=3, background=background), slices="first")
        save_config(config, tmp_path / "config.yaml")
        assert load_config(tmp_path / "config.yaml") == config


def test_a_config_with_both_choices_is_refused():
    with pytest.raises(UserError, match="both choose the object"):
        make_config(mask_value=1, mask_threshold=0.5).check()
