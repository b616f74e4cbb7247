"""Class indices: what the channels mean, and masks and scribbles of several classes in files."""

import warnings

import numpy as np
import pytest
import torch
from accl_harness.classes import decide, foreground, foreground_maps, probabilities
from accl_harness.config import TrainConfig, make_config
from accl_harness.data.dataset import Dataset, load_split
from accl_harness.data.formats import write_labels
from accl_harness.data.options import WeakOptions
from accl_harness.data.weak import weaken, write_weak_labels
from accl_harness.errors import HarnessWarning, UserError
from PIL import Image

CLASSES = np.zeros((16, 16), np.uint8)
CLASSES[2:12, 2:12] = 1
CLASSES[4:10, 4:10] = 2
CLASSES[6:8, 6:8] = 3
SCRIBBLE = np.full((16, 16), 255, np.uint8)
SCRIBBLE[0, 2:9], SCRIBBLE[3, 3:8], SCRIBBLE[5, 5:8], SCRIBBLE[7, 7] = 0, 1, 2, 3


def test_one_channel_is_a_sigmoid_and_several_are_a_softmax():
    logits = torch.tensor([[[[0.0, 2.0]]]])
    assert probabilities(logits).flatten().tolist() == pytest.approx([0.5, 0.880797], abs=1e-6)
    two = torch.tensor([[[[1.0, 0.0]], [[1.0, 2.0]]]])
    assert probabilities(two)[0, :, 0, 1].tolist() == pytest.approx([0.119203, 0.880797], abs=1e-6)
    assert foreground(probabilities(logits)).shape == (1, 1, 1, 2)
    assert torch.equal(foreground(two), two[:, 1:])


def test_decisions_are_class_indices():
    one = torch.tensor([[[[0.5, 0.5000001]]]])
    assert decide(one).tolist() == [[[0, 1]]]  # above one half alone
    several = torch.tensor([[[0.4, 0.2, 0.3], [0.4, 0.3, 0.3], [0.2, 0.5, 0.4]]]).unsqueeze(2)
    assert decide(several).tolist() == [[[0, 2, 2]]]
    assert decide(several).dtype == torch.uint8


def test_maps_of_the_objects_alone():
    masks = torch.tensor([[[0, 1], [2, 3]]], dtype=torch.uint8)
    maps = foreground_maps(masks, 3)
    assert maps.tolist() == [[[[0, 1], [0, 0]], [[0, 0], [1, 0]], [[0, 0], [0, 1]]]]
    assert maps.dtype == torch.float32
    assert foreground_maps(masks, 1).tolist() == [[[[0, 1], [1, 1]]]]


def data_of(folder, suffix=".png", masks=(CLASSES, CLASSES), weak=(SCRIBBLE, SCRIBBLE)):
    for split in ("train", "test"):
        for i, mask in enumerate(masks):
            name = f"p{i}_s{i}{suffix}"
            write_labels(folder / split / "images" / name, CLASSES * 60)
            write_labels(folder / split / "masks" / name, mask)
            if weak is not None and split == "train":
                write_labels(folder / split / "weak" / name, weak[i], key="weak")
    return folder


@pytest.mark.parametrize("suffix", [".png", ".npy", ".nii.gz", ".h5", ".tif", ".bmp"])
def test_every_format_holds_class_indices(tmp_path, suffix):
    data = load_split(data_of(tmp_path, suffix), "train", size=16, classes=4)
    assert data.classes == 4
    assert torch.equal(data.masks[1], torch.from_numpy(CLASSES))
    assert torch.equal(data.weak_labels[0], torch.from_numpy(SCRIBBLE))
    assert np.array_equal(data.full_mask(0), CLASSES)
    assert data.subset([1]).classes == 4


def test_a_volume_of_class_indices(tmp_path):
    stack = np.stack([CLASSES, np.zeros_like(CLASSES), CLASSES], -1)
    labels = np.stack([SCRIBBLE] * 3, -1)
    data_of(tmp_path, ".nii.gz", [stack], [labels])
    write_labels(tmp_path / "train/images/p0_s0.nii.gz", stack * 60)
    data = load_split(tmp_path, "train", size=16, classes=4)
    assert data.masks.flatten(1).amax(1).tolist() == [3, 0, 3]
    assert data.volumes == ["p0_s0.nii.gz"] * 3


def test_a_palette_and_shallow_grey_values(tmp_path):
    data_of(tmp_path)
    palette = Image.fromarray(CLASSES, "P")
    palette.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    palette.save(tmp_path / "train/masks/p0_s0.png")
    data = load_split(tmp_path, "train", size=16, classes=4)
    assert torch.equal(data.masks[0], torch.from_numpy(CLASSES))


def test_a_mask_of_more_classes(tmp_path):
    data_of(tmp_path)
    words = r"p0_s0\.png: with --classes 3 a mask holds .* 0 \(background\) to 2.* holds 0, 1, 2, 3"
    with pytest.raises(UserError, match=words):
        load_split(tmp_path, "train", size=16, classes=3)
    with pytest.raises(UserError, match=r"holds 0, 1, 2, 3; .*give --classes N"):
        load_split(tmp_path, "train", size=16)
    data_of(tmp_path / "b", masks=[(CLASSES > 0) * np.uint8(255)] * 2)
    with pytest.raises(UserError, match=r"with --classes 4 a mask holds .*holds 0, 255"):
        load_split(tmp_path / "b", "train", size=16, classes=4)


def test_a_scribble_of_another_value(tmp_path):
    data_of(tmp_path, weak=[SCRIBBLE, np.where(SCRIBBLE == 255, 4, SCRIBBLE)])
    words = r"p1_s1\.png: with --classes 4 weak labels .*to 3 and 255 .*0, 1, 2, 3, 4; --ignore-ind"
    with pytest.raises(UserError, match=words):
        load_split(tmp_path, "train", size=16, classes=4)
    data_of(tmp_path / "b", weak=[np.where(SCRIBBLE == 255, 4, SCRIBBLE)] * 2)
    other = WeakOptions(unlabelled=4)
    data = load_split(tmp_path / "b", "train", size=16, classes=4, weak=other)
    assert torch.equal(data.weak_labels[0], torch.from_numpy(SCRIBBLE))


def test_a_class_without_a_label_is_an_error_and_without_a_mask_a_warning(tmp_path):
    data_of(tmp_path, weak=[np.where(SCRIBBLE == 3, 255, SCRIBBLE)] * 2)
    words = r"weak: no label of the training images holds class 3 of --classes 4 .*there: 0, 1, 2\)"
    with pytest.raises(UserError, match=words):
        load_split(tmp_path, "train", size=16, classes=4)
    data_of(tmp_path / "b", masks=[np.where(CLASSES == 3, 2, CLASSES)] * 2)
    with pytest.warns(HarnessWarning, match="no training mask shows class 3"):
        load_split(tmp_path / "b", "train", size=16, classes=4)
    with pytest.raises(UserError, match="no mask of the training images holds class 3"):
        load_split(tmp_path / "b", "train", size=16, classes=4, weak=WeakOptions("erosion"))


def test_scribbles_without_background_are_told(tmp_path):
    data_of(tmp_path, weak=[np.where(SCRIBBLE == 0, 255, SCRIBBLE)] * 2)
    with pytest.warns(HarnessWarning, match=r"no label marks the background \(class 0\)"):
        load_split(tmp_path, "train", size=16, classes=4)
    data_of(tmp_path / "b", weak=[SCRIBBLE, np.where(SCRIBBLE == 0, 255, SCRIBBLE)])
    with warnings.catch_warnings():
        warnings.simplefilter("error", HarnessWarning)
        load_split(tmp_path / "b", "train", size=16, classes=4)  # one image has it


def test_files_where_0_is_unlabelled(tmp_path):
    data_of(tmp_path, weak=[np.where(SCRIBBLE == 255, 0, SCRIBBLE)] * 2)
    with pytest.warns(HarnessWarning, match="no label marks the background"):
        data = load_split(tmp_path, "train", size=16, classes=4, weak=WeakOptions(unlabelled=0))
    assert data.weak_labels.unique().tolist() == [1, 2, 3, 255]


def test_labels_made_from_masks_erode_each_class():
    labels = weaken([CLASSES], WeakOptions("erosion", iterations=1), classes=4)[0]
    assert (labels[2:4, 2:12] == 1).all()  # two pixels wide: one erosion would leave nothing
    assert (labels == 0).sum() == 0
    for index in (1, 2, 3):
        assert set(CLASSES[labels == index]) == {index}
    inner = np.zeros((16, 16), np.uint8)
    inner[2:7, 2:7], inner[9:14, 9:14] = 1, 2
    labels = weaken([inner], WeakOptions("erosion", iterations=1), classes=3)[0]
    assert [(labels == index).sum() for index in (1, 2)] == [9, 9]


@pytest.mark.parametrize(
    "options",
    [
        WeakOptions("erosion", iterations=1),
        WeakOptions("disc", radius=1.0),
        WeakOptions("centroid_disc", radius=1.0),
        WeakOptions("skeleton"),
    ],
    ids=lambda options: options.strategy,
)
def test_files_of_every_strategy_are_read_as_scribbles(tmp_path, options):
    """What ``accl weaken`` writes marks every class of every image, and no pixel wrongly."""
    data_of(tmp_path, weak=None)
    report = write_weak_labels(
        tmp_path / "train/masks", tmp_path / "train/weak", options, classes=4
    )
    data = load_split(tmp_path, "train", size=16, classes=4, weak=WeakOptions("scribble"))
    marked = data.weak_labels != 255
    assert (data.weak_labels == data.masks)[marked].all()
    for labels in data.weak_labels:
        found = set(labels.unique().tolist()) - {255}
        assert found == ({0, 1, 2, 3} if options.strategy == "skeleton" else {1, 2, 3})
    assert sum(report["per_class"].values()) == report["pixels"] == marked.sum()
    assert marked.sum() < marked.numel() / 2


def test_a_ratio_counts_the_pixels_of_images(tmp_path):
    data_of(tmp_path)
    report = write_weak_labels(
        tmp_path / "train/masks", tmp_path / "out", WeakOptions(ratio=0.05), classes=4
    )
    assert report["pixels"] == round(0.05 * 2 * 256)
    assert all(count for count in report["per_image"].values())


def test_patients_and_volumes_are_told_apart(tmp_path):
    for name in ("pat1_ed_slice_0", "pat1_ed_slice_1", "pat1_es_slice_0", "pat2_ed_slice_0"):
        write_labels(tmp_path / f"train/images/{name}.png", CLASSES)
        write_labels(tmp_path / f"train/masks/{name}.png", CLASSES)
    read = {"size": 16, "classes": 4, "weak": None, "patients": r"(pat\d+)_"}
    assert load_split(tmp_path, "train", **read).volumes == ["pat1"] * 3 + ["pat2"]
    data = load_split(tmp_path, "train", volumes=r"pat\d+_e[ds]", **read)
    assert data.groups == ["pat1"] * 3 + ["pat2"]
    assert data.volumes == ["pat1_ed", "pat1_ed", "pat1_es", "pat2_ed"]
    assert data.subset([2, 3]).volumes == ["pat1_es", "pat2_ed"]
    with pytest.raises(UserError, match=r"volumes: 'x\(' is not a regular expression"):
        load_split(tmp_path, "train", volumes="x(", **read)
    assert Dataset(images=torch.zeros(1, 1, 4, 4), names=["a"]).volumes == ["a"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": 1}, "classes must be 2 to 255, the background counted, got 1"),
        ({"classes": 256}, "classes must be 2 to 255"),
        ({"classes": 4, "mask_value": 1}, "mask_value chooses one object, classes reads all"),
        ({"classes": 4, "mask_threshold": 1.0}, "mask_threshold chooses one object"),
        ({"classes": 4, "weak": WeakOptions(foreground=2)}, "weak.foreground is the code of one"),
        ({"classes": 4, "weak": WeakOptions(background=3)}, "weak.background is the code of one"),
        ({"classes": 4, "weak": WeakOptions(unlabelled=3)}, r"\(--ignore-index\) is 3, which is a"),
        ({"classes": 4, "weak": WeakOptions("box")}, "boxes of several classes overlap"),
    ],
)
def test_options_that_make_no_sense_with_classes(options, words):
    with pytest.raises(UserError, match=words):
        make_config(**options).check()


def test_channels_and_foregrounds():
    forms = {None: (1, 1), 2: (2, 1), 4: (4, 3)}
    for classes, form in forms.items():
        config = TrainConfig(classes=classes)
        config.check()
        assert (config.channels, config.foregrounds) == form
