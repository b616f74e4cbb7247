"""Several classes from files to report: the commands as a person gives them."""

import json

import numpy as np
import pytest
from accl_harness.cli import main
from accl_harness.run import Run
from PIL import Image
from small_runs import classes_folder

SMALL = (
    *("--size", "32", "--width", "2", "--epochs", "1", "--backend", "reference"),
    *("--accelerator", "cpu", "--tensorboard", "false"),
)
CLASSES = ("--classes", "4", "--volumes", "image")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A comparison of two methods on four slices that make one volume."""
    folder = tmp_path_factory.mktemp("classes")
    data = classes_folder(folder / "data")
    methods = ("--methods", "partial_ce", "accl_crf", "--seeds", "0", "--jobs", "1")
    words = [
        "compare",
        "--data",
        str(data),
        *CLASSES,
        *methods,
        *SMALL,
        "--out",
        str(folder / "out"),
    ]
    assert main(words) == 0
    return folder


def test_a_comparison_holds_each_class(work):
    table = json.loads((work / "out" / "table.json").read_text())
    for method in ("partial_ce", "accl_crf"):
        metrics = Run(work / "out" / "runs" / f"{method}-seed0").metrics()
        of_class = metrics["dsc_per_class"]
        assert list(of_class) == ["1", "2", "3"]
        assert table[method]["mean"]["dsc_per_class"] == of_class
        assert metrics["dsc"] == pytest.approx(np.mean(list(of_class.values())))
        assert metrics["dsc_3d_per_volume_per_class"] == {"image": of_class}
    sheet = (work / "out" / "table.md").read_text()
    assert "## Classes" in sheet
    assert "| Class 1 | Class 2 | Class 3 |" in sheet
    assert "- classes: 4, the background counted" in sheet
    names = {path.name for path in (work / "out" / "figures").iterdir()}
    assert names == {"curves.png", "panel.png", "scores.png", "worst.png"}


def test_evaluate_prints_each_class(work, capsys):
    run, out = work / "out" / "runs" / "partial_ce-seed0", work / "scores"
    assert main(["evaluate", str(run), "--split", "train", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for text in ("class 1", "class 3", "DSC x100 by volume", "DSC x100 by image", "over volumes"):
        assert text in printed
    assert Run(out).metrics()["dsc_of"] == "volumes"


def test_train_prints_each_class(work, capsys):
    words = ["train", "--data", str(work / "data"), "--method", "fs_ce", *CLASSES, *SMALL]
    assert main([*words, "--out", str(work / "run")]) == 0
    metrics = Run(work / "run").metrics()
    shown = [f"class {index} {100 * dsc:.1f}" for index, dsc in metrics["dsc_per_class"].items()]
    assert f"{', '.join(shown)}, size ratio" in capsys.readouterr().out


def test_evaluate_takes_other_patterns(work):
    run, out = work / "out" / "runs" / "partial_ce-seed0", work / "by_pattern"
    words = ["evaluate", str(run), "--volumes", "image_[0123]", "--out", str(out)]
    assert main(words) == 0
    assert Run(out).metrics()["dsc_of"] == "images"


def test_predict_writes_the_scored_masks(work):
    run, images = work / "out" / "runs" / "partial_ce-seed0", work / "data" / "test" / "images"
    words = ["predict", str(run), "--images", str(images), "--out", str(work / "masks")]
    assert main(words) == 0
    for path in (run / "predictions").iterdir():
        new = np.asarray(Image.open(work / "masks" / path.name))
        np.testing.assert_array_equal(new, np.asarray(Image.open(path)))
        assert new.max() <= 3


def test_a_sweep_holds_each_class(work):
    alphas = (
        "--method",
        "unpaired_accl",
        "--alphas",
        "1e-2",
        "1e-1",
        "--seeds",
        "0",
        "--jobs",
        "1",
    )
    words = ["sweep", "--data", str(work / "data"), *CLASSES, *alphas, *SMALL]
    assert main([*words, "--out", str(work / "sweep")]) == 0
    entries = json.loads((work / "sweep" / "sweep.json").read_text())["alphas"]
    assert [list(entry["mean"]["dsc_per_class"]) for entry in entries.values()] == [
        ["1", "2", "3"]
    ] * 2
    assert "## Classes" in (work / "sweep" / "sweep.md").read_text()
    assert (work / "sweep" / "figures" / "alpha.png").is_file()


def test_masks_of_more_classes_than_the_run_has_are_refused(work, tmp_path, capsys):
    data = classes_folder(tmp_path / "data")
    path = data / "test" / "masks" / "image_0.png"
    mask = np.array(Image.open(path))
    mask[0, 0] = 4
    Image.fromarray(mask).save(path)
    run = work / "out" / "runs" / "partial_ce-seed0"
    assert main(["evaluate", str(run), "--data", str(data), "--out", str(tmp_path / "out")]) == 2
    assert "image_0.png: with --classes 4 a mask holds class indices 0" in capsys.readouterr().err
