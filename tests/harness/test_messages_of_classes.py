"""What a person reads whose files do not fit ``--classes``: each message whole, by the commands."""

import shutil
import warnings

import numpy as np
import pytest
from accl_harness.cli import main
from accl_harness.data.dataset import load_split
from accl_harness.data.formats import read_image, write_labels
from accl_harness.errors import HarnessWarning
from small_runs import small_trainer

SIZE = 32
NAMES = ("p1_f1_s0", "p1_f1_s1", "p2_f1_s0")
SMALL = (
    *("--width", "2", "--epochs", "1", "--size", str(SIZE), "--backend", "reference"),
    *("--accelerator", "cpu", "--tensorboard", "false"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three training slices of four classes with scribbles, and as many to test."""
    root = tmp_path_factory.mktemp("whole")
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[4:28, 4:16], mask[4:28, 16:28], mask[12:20, 18:26] = 1, 2, 3
    weak = np.full_like(mask, 255)
    weak[1, 2:30], weak[6, 6:14], weak[6, 18:26], weak[15, 20:24] = 0, 1, 2, 3
    for split in ("train", "test"):
        for name in NAMES:
            write_labels(root / f"{split}/images/{name}.png", 60 * mask + 30)
            write_labels(root / f"{split}/masks/{name}.png", mask)
            if split == "train":
                write_labels(root / f"train/weak/{name}.png", weak)
    return root


def changed(data, tmp_path, kind, change, names=NAMES, split="train"):
    """A copy of the data in which some files of one kind are others."""
    shutil.copytree(data, tmp_path / "data")
    for name in names:
        path = tmp_path / "data" / split / kind / f"{name}.png"
        values = change(read_image(path, "mask").array.astype(int))
        path.unlink()
        write_labels(path, values.astype(np.uint8))
    return tmp_path / "data"


def said(capsys, *words):
    """What a command that is refused writes, its one line."""
    assert main([str(word) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("accl: ")


def train(folder, *more, classes=4, method="partial_ce"):
    options = ("--data", folder, "--classes", classes, "--method", method, *SMALL)
    return ("train", *options, "--out", folder.parent / "run", *more)


RENUMBER = "give the number of classes, the background counted, or renumber the mask"


def test_masks_that_hold_another_index(data, tmp_path, capsys):
    path = f"{data}/test/masks/{NAMES[0]}.png"  # the test masks are read first
    assert said(capsys, *train(data, "--out", tmp_path / "run", classes=3)) == (
        f"{path}: with --classes 3 a mask holds class indices 0 (background) to 2, this one holds "
        f"0, 1, 2, 3; {RENUMBER}"
    )
    one = changed(data, tmp_path, "masks", lambda m: np.where(m == 3, 9, m), NAMES[1:2])
    assert said(capsys, *train(one)) == (
        f"{one}/train/masks/{NAMES[1]}.png: with --classes 4 a mask holds class indices 0 "
        f"(background) to 3, this one holds 0, 1, 2, 9; {RENUMBER}"
    )


def test_masks_of_several_classes_without_the_option(data, tmp_path, capsys):
    words = ("train", "--data", data, "--method", "fs_ce", *SMALL, "--out", tmp_path / "run")
    assert said(capsys, *words) == (
        f"{data}/test/masks/{NAMES[0]}.png: a mask holds 0 and one other value, this one holds 0, "
        "1, 2, 3; paint one object per mask, or choose it by --mask-value V (object: value V) or "
        "--mask-threshold T (object: value > T); for several classes give --classes N"
    )


def test_scribbles_that_hold_another_index(data, tmp_path, capsys):
    other = changed(data, tmp_path, "weak", lambda w: np.where(w == 255, 4, w), NAMES[2:])
    assert said(capsys, *train(other)) == (
        f"{other}/train/weak/{NAMES[2]}.png: with --classes 4 weak labels hold class indices 0 "
        "(background) to 3 and 255 (unlabelled), this file holds 0, 1, 2, 3, 4; --ignore-index "
        "names another value of unlabelled pixels, --weak.codes ilastik is for 0 not marked, 1 "
        "background, 2 the first class"
    )
    assert said(capsys, *train(other, "--ignore-index", 3)) == (
        "weak.unlabelled (--ignore-index) is 3, which is a class of 4; files that leave the "
        "background out have 0"
    )


@pytest.mark.parametrize("made", [False, True], ids=["scribbles", "masks"])
def test_a_class_that_never_occurs(data, tmp_path, capsys, made):
    kind = "masks" if made else "weak"
    without = changed(data, tmp_path, kind, lambda v: np.where(v == 3, 2, v))
    more = ("--weak.strategy", "erosion") if made else ()
    assert said(capsys, *train(without, *more)) == (
        f"{without}/train/{kind}: no {'mask' if made else 'label'} of the training images holds "
        f"class 3 of --classes 4 (classes there: {'1, 2' if made else '0, 1, 2'}), so nothing "
        "would teach it; give the number of classes that there are, or images that show it"
    )


def loaded(folder):
    """The training images, and the warnings that reading them gave."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always", HarnessWarning)
        data = load_split(folder, "train", size=SIZE, classes=4)
    return data, [str(warning.message) for warning in given]


def trainer(data, method):
    return small_trainer(data, classes=4, method=method, prior=None, width=2)


def test_a_class_that_is_labelled_and_in_no_mask(data, tmp_path):
    without, told = loaded(changed(data, tmp_path, "masks", lambda m: np.where(m == 3, 2, m)))
    assert told == [
        f"{tmp_path}/data/train/masks: no training mask shows class 3: no term on sizes and no "
        "reference mask will speak of it"
    ]
    training = trainer(without, "accl_crf")
    for name in ("log_size", "mean_size"):
        values = training.measured[name]
        assert values["1"] is not None
        assert values["3"] is None
    row = training.train_epoch(lambda: None)
    assert all(np.isfinite(value) for value in row.values() if value is not None)


def test_scribbles_without_background(data, tmp_path):
    _, told = loaded(changed(data, tmp_path, "weak", lambda w: np.where(w == 0, 255, w)))
    assert told == [
        f"{tmp_path}/data/train/weak: no label marks the background (class 0): the labels alone "
        "would let the objects fill the image; mark some of it"
    ]


def test_images_that_lack_a_class(data, tmp_path):
    """No warning, and bounds from the images that have it."""
    lacking = changed(data, tmp_path, "masks", lambda m: np.where(m == 3, 2, m), NAMES[:2])
    for name in NAMES[:2]:
        path = lacking / f"train/weak/{name}.png"
        weak = read_image(path, "weak").array
        path.unlink()
        write_labels(path, np.where(weak == 3, 255, weak))
    images, told = loaded(lacking)
    assert told == []
    training = trainer(images, "sccl")
    assert training.bounds["3"] == pytest.approx([0.9 * 64, 1.1 * 64])
    row = training.train_epoch(lambda: None)
    assert all(np.isfinite(value) for value in row.values() if value is not None)


@pytest.mark.parametrize("command", ["train", "compare", "weaken", "references"])
@pytest.mark.parametrize("classes", [1, 0])
def test_no_number_of_classes(data, tmp_path, capsys, command, classes):
    out = tmp_path / "out"
    words = {
        "train": train(data, "--out", out, classes=classes),
        "compare": ("compare", "--data", data, "--classes", classes, *SMALL, "--out", out),
    }.get(command, (command, data / "train/masks", out, "--classes", classes))
    wanted = f"classes must be 2 to 255, the background counted, got {classes}"
    assert said(capsys, *words) == wanted
    assert not out.exists()


NOTHING = "in the file name 'p1_f1_s0'; wanted an expression that finds the "


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--patients", r"patient(\d+)"],
            rf"patients: 'patient(\d+)' finds nothing {NOTHING}patient in the name of every file",
        ),
        (
            ["--volumes", r"v\d"],
            rf"volumes: 'v\d' finds nothing {NOTHING}volume in the name of every file",
        ),
        (
            ["--patients", r"(q)?p\d"],
            rf"patients: '(q)?p\d' finds nothing with its first group {NOTHING}patient in the name "
            "of every file",
        ),
        (
            ["--patients", r"\d*"],
            rf"patients: '\d*' finds nothing {NOTHING}patient in the name of every file",
        ),
        (
            ["--patients", r"p\d", "--volumes", r"f(\d)"],
            r"volumes: 'f(\d)' makes one volume '1' of slices of the patients 'p1' and 'p2'; "
            r"wanted an expression that tells patients apart too, such as "
            r"'(patient\d+_frame\d+)'",
        ),
    ],
)
def test_patterns_that_do_not_fit(data, tmp_path, capsys, options, message):
    assert said(capsys, *train(data, "--out", tmp_path / "run", *options)) == message


def test_a_pattern_that_is_no_expression(data, tmp_path, capsys):
    line = said(capsys, *train(data, "--out", tmp_path / "run", "--patients", r"p(\d"))
    assert line.startswith(r"patients: 'p(\d' is not a regular expression (")


def test_a_volume_is_a_patient_where_nothing_names_patients(data):
    """So that a validation split does not divide it."""
    images = load_split(data, "train", size=SIZE, classes=4, volumes=r"p\d_f\d")
    assert images.volumes == images.groups == ["p1_f1", "p1_f1", "p2_f1"]


def test_no_masks_at_all(data, tmp_path, capsys):
    bare = tmp_path / "data"
    shutil.copytree(data, bare)
    shutil.rmtree(bare / "train/masks")
    assert said(capsys, *train(bare, method="unpaired_accl")) == (
        "references unpaired: the training images have no masks; lay some of any images into "
        "references/ beside them, or name a folder of masks with --references.folder"
    )
    assert said(capsys, *train(bare, method="sccl")) == (
        "the size penalty needs bounds, but no training mask has an object; give them with "
        "--bounds '[a, b]', in pixels at the working size"
    )
