"""Folders in, tensors out: pairing, sizes, slices, patients, weak labels, and what is refused."""

import numpy as np
import pytest
import torch
from accl_harness.data.dataset import Dataset, load_images, load_split, split_validation
from accl_harness.data.formats import read_image, write_labels, write_mask
from accl_harness.data.pixels import resize_image, resize_mask, resize_weak
from accl_harness.data.weak import WeakOptions
from accl_harness.errors import UserError
from PIL import Image

SIDE = 32


def square(top, left, height, width, shape=(SIDE, SIDE)):
    mask = np.zeros(shape, np.uint8)
    mask[top : top + height, left : left + width] = 1
    return mask


@pytest.fixture
def root(tmp_path):
    """Two flat pairs, 32 x 32 and 48 x 40."""
    train = tmp_path / "train"
    write_labels(train / "images/p1_a.png", np.full((SIDE, SIDE), 51))
    write_mask(train / "masks/p1_a.png", square(8, 4, 10, 12))
    write_labels(train / "images/p2_b.png", np.full((48, 40), 204))
    write_mask(train / "masks/p2_b.png", square(20, 10, 12, 20, (48, 40)))
    return tmp_path


def test_a_split_in_tensors(root):
    data = load_split(root, "train", size=SIDE, weak=WeakOptions(iterations=2))
    assert data.names == data.groups == ["p1_a", "p2_b"]
    assert (data.images.shape, data.images.dtype) == ((2, 1, SIDE, SIDE), torch.float32)
    assert (data.masks.dtype, data.weak_labels.dtype) == (torch.uint8, torch.uint8)
    assert data.images[0].unique().tolist() == pytest.approx([-0.6])
    assert torch.allclose(data.images[1], torch.tensor(0.6))
    assert data.masks[0].sum() == 120
    assert data.masks[0, 8:18, 4:16].all()
    assert data.weak_labels[0].unique().tolist() == [1, 255]
    assert (data.weak_labels[0] == 1).sum() == 6 * 8
    assert data.spacings == [None, None]
    assert data.full_shape(1) == (48, 40)
    assert data.full_mask(1).sum() == 240
    assert data.full_image(1).shape == (48, 40)
    annotation = data.annotation()
    assert annotation["per_image"]["p1_a"] == 48
    assert annotation["ratio"] == annotation["pixels"] / (2 * SIDE * SIDE)


def test_weak_none_and_limit(root):
    data = load_split(root, "train", size=SIDE, weak=None, limit=1)
    assert data.names == ["p1_a"]
    assert data.weak_labels is None


def test_resizing_by_hand():
    row = np.array([[-1, -1, 1, 1]], np.float32)
    assert resize_image(np.repeat(row, 4, 0), 2)[0, 0, 0].tolist() == pytest.approx(
        [-5 / 7, 5 / 7]  # triangle of weights 3/4, 3/4 and, over the edge, 1/4
    )
    mask = np.array([[0, 0, 7, 7], [0, 0, 7, 7], [1, 1, 0, 0], [1, 1, 0, 0]])
    assert resize_mask(mask, 2).tolist() == [[0, 7], [1, 0]]
    assert resize_mask(np.array([[0, 1]]), 4).tolist() == [[0, 0, 1, 1]] * 4


def test_resizing_loses_no_label_value():
    labels = np.full((9, 9), 255, np.uint8)
    labels[2, 3:6] = 1
    labels[6, 6] = 0
    for size in (2, 3, 4, 5):
        small = resize_weak(labels, size)
        assert {0, 1} <= set(np.unique(small)), size
    assert resize_weak(labels, 3).tolist() == [[255, 1, 255], [255, 255, 255], [255, 255, 0]]
    assert (resize_weak(np.full((9, 9), 255, np.uint8), 4) == 255).all()


def test_labels_are_eroded_at_full_size(tmp_path):
    write_labels(tmp_path / "train/images/a.png", np.zeros((256, 256)))
    write_mask(tmp_path / "train/masks/a.png", square(100, 100, 41, 41, (256, 256)))
    data = load_split(tmp_path, "train", size=64)  # 21 x 21 left of 41 x 41, a quarter each way
    assert 5 * 5 <= (data.weak_labels == 1).sum() <= 6 * 6
    assert not ((data.weak_labels == 1) & (data.masks == 0)).any()
    by_ratio = load_split(tmp_path, "train", size=64, weak=WeakOptions(ratio=10 / 64**2))
    assert by_ratio.annotation()["pixels"] == 10


def _nifti(path, array, zooms=(1.5, 2.0, 8.0)):
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([*zooms, 1.0])), path)


@pytest.fixture
def volumes(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("pat1_ed", "pat1_es", "pat2_ed"):
        _nifti(tmp_path / f"train/images/{name}.nii.gz", rng.integers(0, 900, (20, 24, 3), "i2"))
        mask = np.dstack(
            [
                np.zeros((20, 24), np.uint8),
                square(4, 6, 8, 9, (20, 24)),
                square(2, 2, 5, 5, (20, 24)),
            ]
        )
        _nifti(tmp_path / f"train/masks/{name}.nii.gz", mask)
    return tmp_path


def test_volumes_are_sliced(volumes):
    data = load_split(volumes, "train", size=16, patients=r"(pat\d+)")
    assert len(data) == 9
    assert data.names[:4] == ["pat1_ed_z000", "pat1_ed_z001", "pat1_ed_z002", "pat1_es_z000"]
    assert data.groups == ["pat1"] * 6 + ["pat2"] * 3
    assert data.spacings[0] == pytest.approx((1.5, 2.0))
    assert data.full_mask(4).sum() == 72
    assert data.masks[0].sum() == 0
    assert (data.weak_labels[0] == 255).all()
    source = data.sources[4]
    assert (source.path.name, source.slice_index) == ("pat1_es.nii.gz", 1)
    volume = read_image(source.path).array
    low, high = np.percentile(volume, (0.5, 99.5))
    expected = np.clip((volume[..., 1] - low) / (high - low), 0, 1) * 2 - 1
    assert np.allclose(data.full_image(4), expected, atol=1e-6)
    assert load_split(volumes, "train", size=16).groups[:4] == ["pat1_ed"] * 3 + ["pat1_es"]


def test_weak_files_and_scribbles(root):
    scribble = np.full((SIDE, SIDE), 255, np.uint8)
    scribble[10, 6:10] = 1
    scribble[25, 3:30] = 0
    write_labels(root / "train/weak/p1_a.png", scribble)
    with pytest.raises(UserError, match=r"p2_b\.png: has no weak label"):
        load_split(root, "train", size=SIDE)
    write_labels(root / "train/weak/p2_b.png", np.full((48, 40), 255))
    data = load_split(root, "train", size=SIDE)
    assert np.array_equal(data.weak_labels[0].numpy(), scribble)
    assert data.annotation()["per_image"] == {"p1_a": 31, "p2_b": 0}
    eroded = load_split(root, "train", size=SIDE, weak=WeakOptions(strategy="erosion"))
    assert not (eroded.weak_labels == 0).any()
    for options in ({"ratio": 0.01}, {"iterations": 3}, {"keep_topology": True}):
        words = f"labels lie here already, weak.{next(iter(options))} would not touch them"
        with pytest.raises(UserError, match=words):
            load_split(root, "train", size=SIDE, weak=WeakOptions(**options))
    # Scribbles alone are enough to train on.
    for path in (root / "train/masks").iterdir():
        path.unlink()
    (root / "train/masks").rmdir()
    assert load_split(root, "train", size=SIDE).masks is None


def test_weak_values_are_checked_once_at_load(root):
    for name, shape in (("p1_a", (SIDE, SIDE)), ("p2_b", (48, 40))):
        write_labels(root / f"train/weak/{name}.png", square(4, 4, 3, 3, shape) * 255)
    with pytest.raises(UserError, match="no pixel holds the foreground's value 1"):
        load_split(root, "train", size=SIDE)
    options = WeakOptions(foreground=255, unlabelled=0)
    data = load_split(root, "train", size=SIDE, weak=options)
    assert data.weak_labels.unique().tolist() == [1, 255]
    assert (data.weak_labels[0] == 1).sum() == 9
    write_labels(root / "train/weak/p1_a.png", square(4, 4, 3, 3) * 4)
    with pytest.raises(UserError, match=r"weak/p1_a\.png.*holds 0, 4"):
        load_split(root, "train", size=SIDE)


def test_scribbles_must_be_there(root):
    with pytest.raises(UserError, match=r"weak: no such folder"):
        load_split(root, "train", weak=WeakOptions(strategy="scribble"))
    with pytest.raises(UserError, match=r"weak: no such folder; weak.foreground is about"):
        load_split(root, "train", weak=WeakOptions(foreground=2))


def test_masks_of_two_values(root):
    write_labels(root / "train/masks/p1_a.png", square(8, 4, 10, 12) * 2)
    with pytest.raises(UserError, match=r"p1_a\.png marks the object by 2.*p2_b\.png by 255"):
        load_split(root, "train")
    assert load_split(root, "train", size=SIDE, mask_threshold=0).masks[0].sum() == 120
    write_labels(root / "train/masks/p1_a.png", square(8, 4, 10, 12))  # 1 beside 255 is clear
    assert load_split(root, "train", size=SIDE).masks[0].sum() == 120


def test_the_file_of_an_unusual_value_is_named(root):
    write_labels(root / "train/masks/p1_a.png", square(8, 4, 10, 12))
    for name, value in (("p3_c", 255), ("p4_d", 128)):  # beside them p1_a has 1, p2_b has 255
        write_labels(root / f"train/images/{name}.png", square(0, 0, 9, 9))
        write_labels(root / f"train/masks/{name}.png", square(8, 4, 10, 12) * value)
    with pytest.raises(UserError, match=r"p4_d\.png marks the object by 128"):
        load_split(root, "train")


def test_masks_of_many_values_need_a_threshold(root):
    write_labels(root / "train/masks/p1_a.png", square(8, 4, 10, 12) * 2 + square(0, 0, 4, 4))
    with pytest.raises(UserError, match=r"p1_a\.png.*holds 0, 1, 2.*--mask-threshold"):
        load_split(root, "train")
    data = load_split(root, "train", size=SIDE, mask_threshold=1.5)
    assert data.masks[0].sum() == 120
    write_labels(root / "train/masks/p1_a.png", np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 256)
    with pytest.raises(UserError, match=r"0, 1, 2, 3, 4, 5, \.\.\. \(256 values\)"):
        load_split(root, "train")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t: (t / "masks/p1_a.png").unlink(), r"images/p1_a\.png: has no mask"),
        (lambda t: (t / "images/p2_b.png").unlink(), r"masks/p2_b\.png: has no image"),
        (lambda t: (t / "images/p1_a.png").write_bytes(b"x"), r"images/p1_a\.png: cannot be read"),
        (lambda t: (t / "masks/p2_b.png").write_bytes(b""), r"masks/p2_b\.png: cannot be read"),
        (
            lambda t: write_mask(t / "masks/p1_a.png", square(1, 1, 3, 3, (16, 32))),
            r"masks/p1_a\.png: is 16 x 32, its image .*p1_a\.png is 32 x 32",
        ),
        (lambda t: [p.unlink() for p in (t / "images").iterdir()], "images: holds no images"),
        (lambda t: [p.unlink() for p in (t / "masks").iterdir()], "masks: holds no masks"),
        (lambda t: (t / "masks").rename(t / "masks_cup"), r"holds masks_cup; name .*--masks"),
        (lambda t: (t / "images").rename(t / "imgs"), "images: no such folder"),
        (lambda t: t.rename(t.parent / "training"), "has no folder train; wanted"),
    ],
)
def test_what_is_refused(root, spoil, words):
    spoil(root / "train")
    with pytest.raises(UserError, match=words):
        load_split(root, "train", size=SIDE)


def test_missing_root_and_other_mask_folder(root):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        load_split(root / "nowhere", "train")
    (root / "train/masks").rename(root / "train/masks_cup")
    assert len(load_split(root, "train", masks="masks_cup", size=SIDE)) == 2


def test_patients(root):
    assert load_split(root, "train", size=SIDE, patients=r"^p\d").groups == ["p1", "p2"]
    with pytest.raises(UserError, match="finds nothing in the file name 'p1_a'"):
        load_split(root, "train", patients=r"patient(\d+)")
    with pytest.raises(UserError, match="not a regular expression"):
        load_split(root, "train", patients="(")


def _many(count=20):
    return Dataset(
        images=torch.arange(count * 4.0).reshape(count, 1, 2, 2),
        masks=torch.zeros(count, 2, 2, dtype=torch.uint8),
        names=[f"i{i}" for i in range(count)],
        groups=[f"p{i // 2}" for i in range(count)],
    )


def test_validation_takes_whole_patients_and_depends_on_the_seed_alone():
    data = _many()
    train, validation = split_validation(data, 0.3, seed=1)
    assert (len(train), len(validation)) == (14, 6)
    assert not set(train.groups) & set(validation.groups)
    assert sorted(train.names + validation.names) == sorted(data.names)
    assert torch.equal(
        validation.images, data.images[[data.names.index(n) for n in validation.names]]
    )
    assert split_validation(data, 0.3, seed=1)[1].names == validation.names
    assert len({tuple(split_validation(data, 0.3, seed=s)[1].names) for s in range(8)}) > 4
    shuffled = data.subset(torch.randperm(20, generator=torch.Generator().manual_seed(0)))
    assert set(split_validation(shuffled, 0.3, seed=1)[1].names) == set(validation.names)
    assert split_validation(data, 0, seed=1) == (data, None)
    assert len(split_validation(data, 0.01, seed=1)[1]) == 2
    for fraction in (-0.1, 1.0, 0.97):
        with pytest.raises(UserError, match="fraction"):
            split_validation(data, fraction, seed=0)


def test_a_dataset_by_hand():
    data = _many(3)
    assert data.full_shape(0) == (2, 2)
    assert data.full_mask(1).shape == data.full_image(1).shape == (2, 2)
    part = data.subset([2, 0])
    assert part.names == ["i2", "i0"]
    assert part.images[0, 0, 0, 0] == 8
    assert data.annotation() == {"pixels": 0, "ratio": 0.0, "per_image": {}}


def test_load_images(tmp_path):
    Image.fromarray(np.full((9, 7), 255, np.uint8)).save(tmp_path / "b.png")
    np.save(tmp_path / "a.npy", np.zeros((5, 6, 2), np.float32))
    data = load_images(tmp_path, size=8)
    assert data.names == ["a_z000", "a_z001", "b"]
    assert data.masks is None
    assert torch.allclose(data.images[2], torch.tensor(1.0))
    assert data.full_shape(2) == (9, 7)
    with pytest.raises(UserError, match="b: has no mask"):
        data.full_mask(2)
    assert load_images(tmp_path / "b.png", size=8).names == ["b"]
