"""Options under the names that they had once: as flags, in files of options and in runs."""

import dataclasses
import shlex

import pytest
import yaml
from accl_harness.cli import main
from accl_harness.config import make_config
from accl_harness.config_file import EARLIER_NAMES, load_config, with_present_names
from accl_harness.data.options import MaskBankOptions, ReferenceOptions
from accl_harness.errors import UserError
from accl_harness.run import Run
from small_runs import phantom_folder

SMALL = "--size 32 --width 2 --epochs 1 --backend reference --accelerator cpu --tensorboard false"
REFERENCES = "--references.kind augmented --references.painted 2 --references.count 5"
NOW = f"{REFERENCES} --image-moves.shift 0.2 --image-moves.flip --references.mask-bank.warp 0.1"
ONCE = f"{REFERENCES} --augment.shift 0.2 --augment.flip --references.augmentation.warp 0.1"

MOVES = dataclasses.replace(make_config().image_moves, shift=0.2, flip=True)


@pytest.fixture(scope="module")
def run_of_earlier_flags(tmp_path_factory):
    folder = tmp_path_factory.mktemp("earlier")
    data = phantom_folder(folder)
    assert main(shlex.split(f"train --data {data} --out {folder / 'run'} {SMALL} {ONCE}")) == 0
    return data, folder / "run"


def test_earlier_flags_mean_the_options_of_today(run_of_earlier_flags):
    config = load_config(run_of_earlier_flags[1] / "config.yaml")
    assert config.image_moves == MOVES
    assert config.references == ReferenceOptions(
        kind="augmented", painted=2, count=5, mask_bank=MaskBankOptions(warp=0.1)
    )


def test_a_run_whose_config_has_the_earlier_names_goes_on(run_of_earlier_flags, capsys):
    data, run = run_of_earlier_flags
    before = load_config(run / "config.yaml")
    content = yaml.safe_load((run / "config.yaml").read_text())
    content["augment"] = content.pop("image_moves")
    content["references"]["augmentation"] = content["references"].pop("mask_bank")
    (run / "config.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert load_config(run / "config.yaml") == before

    Run(run).metrics_file.unlink()
    line = f"train --data {data} --out {run} {SMALL} --resume"
    assert main(shlex.split(f"{line} {NOW.replace('shift 0.2', 'shift 0.3')}")) == 2
    assert "was trained with image_moves" in capsys.readouterr().err
    assert main(shlex.split(f"{line} {NOW}")) == 0
    assert Run(run).metrics() is not None


@pytest.mark.parametrize(
    "text",
    [
        "augment:\n  shift: 0.2\n  flip: true\nreferences:\n  augmentation:\n    warp: 0.1\n",
        "augment.shift: 0.2\naugment.flip: true\nreferences.augmentation.warp: 0.1\n",
        "image_moves: {shift: 0.2, flip: true}\nreferences: {mask_bank: {warp: 0.1}}\n",
    ],
)
def test_files_of_options_may_have_the_earlier_names(run_of_earlier_flags, tmp_path, text):
    (tmp_path / "options.yaml").write_text(f"lr: 1e-3\n{text}")
    data, _ = run_of_earlier_flags
    out = tmp_path / "run"
    line = f"train --config {tmp_path / 'options.yaml'} --data {data} --out {out} {SMALL}"
    assert main(shlex.split(line)) == 0
    config = load_config(out / "config.yaml")
    assert config.lr == 1e-3
    assert config.image_moves == MOVES
    assert config.references.mask_bank == MaskBankOptions(warp=0.1)


@pytest.mark.parametrize("reverse", [False, True])
def test_an_option_by_both_names_is_refused(reverse):
    content = {"augment": {"shift": 0.1}, "image_moves": {"shift": 0.2}}
    content = dict(reversed(content.items())) if reverse else content
    with pytest.raises(UserError, match="image_moves is given twice, once by its earlier name"):
        with_present_names(content)


def test_the_help_shows_the_names_of_today_alone(capsys):
    for command in ("train", "compare", "sweep"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown = capsys.readouterr().out
        assert "--image-moves.shift" in shown
        assert "--references.mask-bank.warp" in shown
        assert not any(f"--{earlier}" in shown for earlier in EARLIER_NAMES)
