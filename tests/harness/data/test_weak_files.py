"""What 0 means in a file of weak labels: background, or not marked."""

import shutil

import numpy as np
import pytest
import yaml
from accl_harness.cli import main
from accl_harness.data.dataset import load_split
from accl_harness.data.formats import ImageFile, read_image, write_labels
from accl_harness.data.options import WeakOptions
from accl_harness.data.weak_files import WeakReader
from accl_harness.errors import UserError
from small_runs import phantom_folder

SMALL = (
    *("--method", "partial_ce", "--width", "2", "--epochs", "1", "--size", "32"),
    *("--backend", "reference", "--accelerator", "cpu", "--tensorboard", "false"),
)


@pytest.fixture(scope="module")
def strokes(tmp_path_factory):
    """Phantoms whose labels are in ilastik's codes: 0 not marked, 1 background, 2 the object."""
    root = phantom_folder(tmp_path_factory.mktemp("strokes") / "data")
    shutil.rmtree(root / "train/weak", ignore_errors=True)
    for path in sorted((root / "train/masks").iterdir()):
        mask = read_image(path, "mask").array != 0
        label = np.zeros(mask.shape, np.uint8)
        label[0] = 1
        label[mask] = 2
        write_labels(root / "train/weak" / path.name, label)
    return root


def with_labels(strokes, tmp_path, change):
    """A copy of the data with other labels."""
    root = shutil.copytree(strokes, tmp_path / "data")
    for path in (root / "train/weak").iterdir():
        values = read_image(path, "weak").array
        path.unlink()
        write_labels(path, change(values).astype(np.uint8))
    return root


def said(capsys, *words):
    """What a command that is refused writes, its one line."""
    assert main([str(word) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("accl: ")


def weak(*arrays, classes=None, **options):
    """The labels of a folder of these files; of the first one, where there are several."""
    reader = WeakReader(WeakOptions(**options), classes)
    labels = [reader.read(ImageFile("w.npy", np.asarray(a), role="weak")) for a in arrays]
    reader.check()
    return labels[0].tolist()


def test_codes_of_ilastik():
    assert weak([[0, 1, 2]], codes="ilastik") == [[255, 0, 1]]
    assert weak([[0, 1, 2, 3]], classes=3, codes="ilastik") == [[255, 0, 1, 2]]
    assert weak([[1, 2, 2]], codes="ilastik") == [[0, 1, 1]]  # marked throughout, and said so
    with pytest.raises(
        UserError, match=r"0 \(not marked\), 1 \(background\) to 2, .* 0, 1, 2, 3; "
    ):
        weak([[0, 1, 2, 3]], codes="ilastik")
    with pytest.raises(UserError, match=r"1 \(background\) to 3, this file holds 0, 1, 4$"):
        weak([[0, 1, 4]], classes=3, codes="ilastik")
    with pytest.raises(UserError, match=r"weak.codes ilastik is 0 not marked, 1 background, 2 the"):
        weak([[0, 1, 2]])


@pytest.mark.parametrize("classes", [None, 3])
def test_labels_without_an_unlabelled_pixel(classes):
    words = r"w\.npy: every pixel is labelled \(0, 1; no 255 .*--weak\.unlabelled 0 .*codes full"
    with pytest.raises(UserError, match=words):
        weak([[0, 1, 1]], classes=classes)
    assert weak([[0, 1, 1]], classes=classes, codes="full") == [[0, 1, 1]]
    assert weak([[0, 1, 1]], classes=classes, unlabelled=0) == [[255, 1, 1]]
    # A whole mask beside a file that knows the code of unlabelled pixels is meant as one.
    assert weak([[0, 1, 1]], [[1, 255]], classes=classes) == [[0, 1, 1]]
    # An image without the object, one that is the object, and a volume with an open pixel.
    assert weak([[0, 0]], classes=classes) == [[0, 0]]
    assert weak([[1, 1]], classes=classes) == [[1, 1]]
    assert weak([[[0, 1], [0, 255]]], classes=classes) == [[[0, 1], [0, 255]]]


def test_a_named_background_is_taken_at_its_word():
    assert weak([[0, 1]], background=0) == [[0, 1]]
    assert weak([[2, 1]], background=2) == [[0, 1]]
    with pytest.raises(UserError, match=r"\(0, 3; no 7 for unlabelled\)"):
        weak([[0, 3]], foreground=3, unlabelled=7)


@pytest.mark.parametrize("name", ["foreground", "background", "unlabelled"])
def test_a_word_and_its_letters_do_not_mix(name):
    with pytest.raises(UserError, match=rf"weak\.codes ilastik is .*; weak\.{name} would say some"):
        WeakOptions(codes="ilastik", **{name: 3})
    with pytest.raises(UserError, match=r"weak\.codes: wanted one of values, ilastik, full, got x"):
        WeakOptions(codes="x")


@pytest.mark.parametrize("command", ["train", "compare", "sweep"])
def test_strokes_on_0_are_refused_before_a_training(strokes, tmp_path, capsys, command):
    for classes, change in ((None, lambda v: v == 2), (3, lambda v: v)):
        case = tmp_path / str(classes)
        root = with_labels(strokes, case, change)
        options = [word for word in SMALL if command == "train" or word not in SMALL[:2]]
        if classes:
            options += ["--classes", classes]
            for split in ("train", "test"):
                for path in (root / split / "masks").iterdir():
                    mask = read_image(path, "mask").array != 0
                    path.unlink()
                    mask = mask.astype(np.uint8)
                    mask[:2, :2] = 2
                    write_labels(path, mask)
        words = (command, "--data", root, "--out", case / "out", *options)
        values = "0, 1, 2" if classes else "0, 1"
        assert said(capsys, *words) == (
            f"{root}/train/weak/phantom_000.png: every pixel is labelled ({values}; no 255 for "
            "unlabelled). If 0 means not marked, as in ilastik, napari, 3D Slicer and ITK-SNAP, "
            "give --weak.unlabelled 0 (or --weak.codes ilastik where 1 is the background and 2 the "
            "object); if these are full masks, give --weak.codes full"
        )
        assert not (case / "out").exists() or not list((case / "out").glob("**/*.ckpt"))


def test_a_training_of_ilastik_labels_and_what_follows(strokes, tmp_path, capsys):
    run = tmp_path / "run"
    words = ("train", "--data", strokes, *SMALL, "--weak.codes", "ilastik", "--out", run)
    assert main([str(word) for word in words]) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["weak"]["codes"] == "ilastik"
    data = load_split(strokes, "train", size=32, weak=WeakOptions(codes="ilastik"))
    assert data.weak_labels.unique().tolist() == [0, 1, 255]
    assert (data.weak_labels == 1).sum() == data.masks.sum()
    assert main(["evaluate", str(run)]) == 0
    words = ("predict", run, "--images", strokes / "test/images", "--out", tmp_path / "predicted")
    assert main([str(word) for word in words]) == 0
    capsys.readouterr()


def test_commands_that_read_masks(strokes, tmp_path, capsys):
    """In their files 0 is the background; a word about marks is refused, not ignored."""
    marks = strokes / "train/weak"
    masks = strokes / "train/masks"
    out = tmp_path / "out"
    assert "holds 0, 1, 2; paint one" in said(capsys, "weaken", marks, out)
    assert "holds 0, 1, 2; paint one" in said(capsys, "references", marks, out)
    for name, value in (("codes", "ilastik"), ("unlabelled", 0)):
        assert said(capsys, "weaken", masks, out, f"--{name}", value) == (
            f"weak.{name} is about labels that a training reads; here masks are read, in which "
            "--mask-value or --mask-threshold chooses the object"
        )
    words = said(
        capsys,
        "train",
        "--data",
        strokes,
        *SMALL,
        "--weak.codes",
        "ilastik",
        "--weak.strategy",
        "erosion",
        "--out",
        out,
    )
    assert (
        words == f"{marks}: strategy erosion does not read it; weak.codes is about the labels in it"
    )
