"""benchmarks/redraw.py: other draws of a data set, patients whole on one side."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "redraw.py"


@pytest.fixture
def data(tmp_path) -> Path:
    """Eight patients with four slices each; the last slice of each shows class 1 alone."""
    for patient in range(8):
        for slice_ in range(4):
            part = tmp_path / "data" / ("train" if patient < 5 else "test")
            pixels = np.full((4, 4), 1 if slice_ == 3 else 3, np.uint8)
            for folder in ("images", "masks"):
                (part / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(part / folder / f"patient{patient}_{slice_}.png")
    return tmp_path / "data"


def redraw(data: Path, out: Path, *options: str) -> dict[str, list[str]]:
    command = [sys.executable, SCRIPT, data, out, "--value", "3", "--group", r"patient(\d+)"]
    subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    drawn = {}
    for part in ("train", "test"):
        drawn[part] = sorted(file.name for file in (out / part / "images").iterdir())
        assert drawn[part] == sorted(file.name for file in (out / part / "masks").iterdir())
    return drawn


def test_patients_stay_whole_and_only_slices_with_the_object_count(data, tmp_path):
    drawn = redraw(data, tmp_path / "a", "--seed", "1", "--train", "15", "--test", "5")
    assert {part: len(names) for part, names in drawn.items()} == {"train": 15, "test": 5}
    patients = {part: {name[7] for name in names} for part, names in drawn.items()}
    assert not patients["train"] & patients["test"]
    assert not any(name.endswith("_3.png") for names in drawn.values() for name in names)


def test_the_seed_decides(data, tmp_path):
    sizes = ("--train", "9", "--test", "3")
    first = redraw(data, tmp_path / "a", "--seed", "1", *sizes)
    assert first == redraw(data, tmp_path / "b", "--seed", "1", *sizes)
    assert first != redraw(data, tmp_path / "c", "--seed", "2", *sizes)


def test_more_images_than_there_are(data, tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as caught:
        redraw(data, tmp_path / "a", "--seed", "1", "--train", "21", "--test", "7")
    assert "train: wanted 21 images, its groups have 18" in caught.value.stderr


def test_a_group_that_a_name_lacks(data, tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as caught:
        redraw(data, tmp_path / "a", "--seed", "1", "--group", "case")
    assert "--group case does not occur in the name patient5_0.png" in caught.value.stderr
