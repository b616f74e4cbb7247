"""Values of label files: one class of several, numbers next to integers, codes of weak labels."""

import numpy as np
import pytest
from accl_harness.data.dataset import load_split
from accl_harness.data.formats import ImageFile, read_image, write_labels, write_mask
from accl_harness.data.labels import binary_mask, number
from accl_harness.data.options import WeakOptions
from accl_harness.data.references import make_bank, read_masks, write_references
from accl_harness.data.weak import write_weak_labels
from accl_harness.data.weak_files import weak_values
from accl_harness.errors import UserError

CLASSES = np.zeros((16, 16), np.uint8)
CLASSES[2:12, 2:12] = 1
CLASSES[4:10, 4:10] = 2
CLASSES[6:8, 6:8] = 3  # 64, 32 and 4 pixels


@pytest.fixture
def root(tmp_path):
    for name, classes in (("a", CLASSES), ("b", np.where(CLASSES == 3, 0, CLASSES))):
        write_labels(tmp_path / f"train/images/{name}.png", classes * 60)
        write_labels(tmp_path / f"train/masks/{name}.png", classes)
    return tmp_path


def of(array):
    return ImageFile("a.npy", np.asarray(array), role="mask")


@pytest.mark.parametrize(("value", "pixels"), [(1, [64, 64]), (2, [32, 32]), (3, [4, 0])])
def test_one_class_of_several(root, value, pixels):
    data = load_split(root, "train", size=16, weak=None, mask_value=value)
    assert data.masks.sum((1, 2)).tolist() == pixels


def test_a_class_that_no_mask_holds(root):
    words = r"masks: no mask holds the value 7 .*--mask-value.*\.png holds 0, 1, 2"
    with pytest.raises(UserError, match=words):
        load_split(root, "train", size=16, mask_value=7)
    for write in (write_weak_labels, write_references):
        with pytest.raises(UserError, match="no mask holds the value 7"):
            write(root / "train/masks", root / "out", mask_value=7)
    with pytest.raises(UserError, match="mask_threshold and mask_value both"):
        load_split(root, "train", size=16, mask_value=1, mask_threshold=1.0)


def test_several_classes_without_a_choice(root):
    with pytest.raises(UserError, match=r"a\.png.*holds 0, 1, 2, 3;.*--mask-value V"):
        load_split(root, "train", size=16)


def test_weaken_and_references_of_a_class(root):
    report = write_weak_labels(
        root / "train/masks", root / "weak", WeakOptions(iterations=0), mask_value=2
    )
    assert report["per_image"] == {"a": 32, "b": 32}
    assert write_references(root / "train/masks", root / "bank", n=3, mask_value=3)["painted"] == 1
    # A bank of 0 and 255 serves a training of class 2.
    data = load_split(root, "train", size=16, mask_value=2)
    bank = make_bank("folder", data, folder=root / "bank", mask_value=2)
    assert len(bank) == 3
    bank = make_bank("folder", data, folder=root / "train/masks", mask_value=2)
    assert bank.masks.sum((1, 2)).tolist() == [32, 32]


def test_masks_of_two_values_are_not_mixed(tmp_path):
    write_labels(tmp_path / "a.png", CLASSES // 3 * 5)
    write_labels(tmp_path / "b.png", CLASSES // 3 * 9)
    for read in (read_masks, lambda folder: write_weak_labels(folder, tmp_path / "out")):
        with pytest.raises(UserError, match=r"a\.png marks the object by 5, .*b\.png by 9"):
            read(tmp_path)


def test_colours_of_two_masks_are_not_mixed(tmp_path):
    """255 in the red channel of one file, in the green one of the other."""
    from PIL import Image

    for name, channel in (("a", 0), ("b", 1)):
        array = np.zeros((16, 16, 3), np.uint8)
        array[4:9, 3:8, channel] = 255
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match=r"by 16711680, .* by 65280"):
        read_masks(tmp_path)


def test_numbers_next_to_integers():
    mask, value = binary_mask(of(np.float32([[0, 1, 0.9999999], [1e-7, -1e-7, 1.0000001]])))
    assert mask.tolist() == [[0, 1, 1], [0, 0, 1]]
    assert value == 1
    assert binary_mask(of([[0.0, 254.9999]]), value=255)[0].tolist() == [[0, 1]]
    assert binary_mask(of([[0.0, 0.0004]]))[0].tolist() == [[0, 1]]  # all it has, however small
    assert binary_mask(of([[0.0, 0.5]])) == (pytest.approx(np.array([[0, 1]])), 0.5)
    with pytest.raises(UserError, match=r"holds 0, 0\.99, 1;"):
        binary_mask(of([[0, 0.99, 1.0]]))
    with pytest.raises(UserError, match=r"holds 0, 0\.5, 0\.50000006;"):
        binary_mask(of(np.float32([[0, 0.5, 0.50000006]])))
    with pytest.raises(UserError, match=r"holds 0, 1, 16777217;"):
        binary_mask(of(np.int64([[0, 1, 16777217]])))


def test_numbers_are_written_apart():
    values = np.float32([1, 0.9999999, 1e-7, 255, -1, 0.1, 1e20])
    assert len({number(value) for value in values}) == len(values)
    assert [number(v) for v in values[:6]] == ["1", "0.9999999", "0.0000001", "255", "-1", "0.1"]


# --- weak labels


def weak(array, **options):
    file = ImageFile("w.npy", np.asarray(array), role="weak")
    return weak_values(file, WeakOptions(**options)).tolist()


def test_codes_of_weak_labels():
    assert weak([[0, 1, 255]]) == [[0, 1, 255]]
    assert weak([[1, 2, 0]], foreground=2, background=1, unlabelled=0) == [[0, 1, 255]]
    assert weak([[0, 255]], foreground=255, unlabelled=0) == [[255, 1]]
    assert weak([[0, 1]], foreground=0, background=1) == [[1, 0]]
    # Scribbles of several classes: all but the one that is looked for are background.
    scribbles = [[0, 1, 2, 3, 255]]
    assert weak(scribbles, foreground=3, background=(0, 1, 2)) == [[0, 0, 0, 1, 255]]
    assert WeakOptions(foreground=3, background=[0, 1, 2]).background == (0, 1, 2)
    assert weak(np.int16([[-1, 0, 1]]), unlabelled=-1) == [[255, 0, 1]]
    assert weak(np.float32([[0, 0.9999999, 255]])) == [[0, 1, 255]]


def test_codes_that_are_not_named():
    with pytest.raises(
        UserError, match=r"hold 0 \(background\), 3 .* holds 0, 1, 3; weak.background"
    ):
        weak([[0, 1, 3]], foreground=3)
    with pytest.raises(UserError, match=r"hold no value \(background\)"):
        weak([[0, 1, 2]], unlabelled=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"background": 1}, "weak.background and weak.foreground are both 1"),
        ({"background": (0, 255)}, "weak.background and weak.unlabelled are both 255"),
        ({"background": 0, "unlabelled": 0}, "weak.background and weak.unlabelled are both 0"),
    ],
)
def test_codes_that_clash(options, words):
    with pytest.raises(UserError, match=words):
        WeakOptions(**options)


def test_background_is_idle_where_labels_are_made(root):
    with pytest.raises(UserError, match=r"weak\.background is about the labels in it"):
        load_split(root, "train", size=16, weak=WeakOptions(background=2), mask_value=1)


def test_reading_scribbles_of_several_classes(root):
    for name in ("a", "b"):
        scribble = np.full((16, 16), 255, np.uint8)
        scribble[6, 4:9] = CLASSES[6, 4:9]
        write_labels(root / f"train/weak/{name}.png", scribble)
    options = WeakOptions(foreground=3, background=(0, 1, 2))
    data = load_split(root, "train", size=16, weak=options, mask_value=3)
    assert (data.weak_labels == 1).sum() == 4
    assert (data.weak_labels == 0).sum() == 6


def test_masks_of_a_run_are_read_as_they_were_written(tmp_path):
    write_mask(tmp_path / "a.png", CLASSES > 0)
    assert binary_mask(read_image(tmp_path / "a.png", "mask"))[1] == 255
