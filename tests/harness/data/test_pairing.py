"""Folders: no file is passed over unsaid, no name is taken for another's, equal names find each
other."""

import unicodedata

import numpy as np
import pytest
from accl_harness.data.dataset import load_images, load_split
from accl_harness.data.fingerprint import fingerprint
from accl_harness.data.formats import write_labels, write_mask
from accl_harness.data.options import WeakOptions
from accl_harness.data.pairing import list_files
from accl_harness.data.references import read_masks
from accl_harness.errors import UserError

IMAGE = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16)
MASK = (IMAGE > 200).astype(np.uint8)
E_ACUTE = ("é", "e\u0301")  # one letter, and a letter with an accent behind it


def pair(root, image="a", mask="a", masks="masks"):
    write_labels(root / f"train/images/{image}.png", IMAGE)
    write_mask(root / f"train/{masks}/{mask}.png", MASK)


def load(root, **options):
    return load_split(root, "train", size=16, **{"weak": None, **options})


def test_list_files(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        list_files(tmp_path / "absent")
    with pytest.raises(UserError, match="holds no images"):
        list_files(tmp_path)
    for name in ("b.png", "a.nii.gz", "C.TIFF", "d.e.png", ".hidden", "README.md", "Thumbs.db"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / ".hidden_folder").mkdir()
    (tmp_path / ".hidden_folder/x.png").touch()
    assert list(list_files(tmp_path)) == ["C", "a", "b", "d.e"]
    (tmp_path / "c.webp").touch()
    with pytest.raises(UserError, match=r"c\.webp: not a readable format"):
        list_files(tmp_path)
    (tmp_path / "c.webp").rename(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.(png|nii\.gz).*same name; keep"):
        list_files(tmp_path)


@pytest.mark.parametrize("kind", ["images", "masks"])
@pytest.mark.parametrize("name", ["patient2", "a.png", "b.nii.gz"])
def test_folders_among_the_files_are_told(tmp_path, kind, name):
    pair(tmp_path, "p", "p")
    folder = tmp_path / "train" / kind / name
    folder.mkdir()
    (folder / ".DS_Store").touch()
    (folder / "notes.txt").touch()
    assert len(load(tmp_path)) == 1
    (folder / "deep").mkdir()
    (folder / "deep/q0.dcm").touch()
    with pytest.raises(UserError, match=rf"{name}: is a folder among the {kind}, and its 1 files"):
        load(tmp_path)


def test_links(tmp_path):
    pair(tmp_path)
    (tmp_path / "train/images/b.png").symlink_to(tmp_path / "train/images/a.png")
    (tmp_path / "train/masks/b.png").symlink_to("a.png")
    assert load(tmp_path).names == ["a", "b"]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/c.png").touch()
    (tmp_path / "train/images/more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="more: is a folder among the images, and its 1 files"):
        load(tmp_path)


@pytest.mark.parametrize("forms", [E_ACUTE, E_ACUTE[::-1]])
def test_names_in_two_forms_of_unicode_are_one(tmp_path, forms):
    image, mask = (f"caf{form}_1" for form in forms)
    pair(tmp_path, image, mask)
    write_labels(tmp_path / f"train/weak/{mask}.png", MASK)
    data = load(tmp_path, weak=WeakOptions(codes="full"), patients=f"caf{forms[1]}")
    assert data.names == [unicodedata.normalize("NFC", image)]
    assert data.groups == [f"caf{E_ACUTE[0]}"]
    assert data.masks.sum() == MASK.sum()
    digest = fingerprint(tmp_path)
    (tmp_path / f"train/images/{image}.png").rename(tmp_path / f"train/images/{mask}.png")
    assert fingerprint(tmp_path) == digest
    write_labels(tmp_path / f"train/images/{image}.png", IMAGE)
    with pytest.raises(
        UserError, match=r"two forms of Unicode .*'caf\\xe9_1'.*keep one of them"
    ) as e:
        load(tmp_path)
    assert r"'cafe\u0301_1'" in str(e.value)


def test_names_that_are_not_quite_the_same(tmp_path):
    pair(tmp_path, "Scan 1", "scan_1")
    with pytest.raises(UserError, match=r"Scan 1\.png: has no mask of the same name in [^;]*; add"):
        load(tmp_path)
    (tmp_path / "train/masks/scan_1.png").rename(tmp_path / "train/masks/scan 1.png")
    with pytest.raises(UserError, match=r"scan 1\.png \('scan 1'\) is not quite 'Scan 1'"):
        load(tmp_path)


def test_fingerprint_of_names_that_are_not_utf8(tmp_path):
    pair(tmp_path)
    one = fingerprint(tmp_path)
    source = tmp_path / "train/images/a.png"
    source.rename(source.with_name("caf\udce9.png"))
    assert fingerprint(tmp_path) != one


# --- the suffix of masks


def test_mask_suffix(tmp_path):
    pair(tmp_path, "a", "a_mask")
    pair(tmp_path, "b", "b_mask")
    with pytest.raises(UserError, match=r"a_mask\.png would do with --mask-suffix _mask"):
        load(tmp_path)
    data = load(tmp_path, mask_suffix="_mask")
    assert data.names == ["a", "b"]
    write_labels(tmp_path / "train/weak/a_mask.png", MASK)
    write_labels(tmp_path / "train/weak/b.png", MASK)
    full = WeakOptions(codes="full")
    assert load(tmp_path, mask_suffix="_mask", weak=full).annotation()["pixels"] == 512
    write_mask(tmp_path / "train/masks/a.png", MASK)
    with pytest.raises(UserError, match=r"a_mask\.png and a\.png belong to one image"):
        load(tmp_path, mask_suffix="_mask")


def test_a_name_that_has_the_suffix_itself(tmp_path):
    pair(tmp_path, "a_mask", "a_mask_mask")
    assert load(tmp_path, mask_suffix="_mask").names == ["a_mask"]


def test_images_and_masks_in_one_folder(tmp_path):
    pair(tmp_path, "a", "a_mask", masks="images")
    pair(tmp_path, "b", "b_mask", masks="images")
    data = load(tmp_path, masks="images", mask_suffix="_mask")
    assert data.names == ["a", "b"]
    assert data.masks.sum() == 2 * MASK.sum()
    (tmp_path / "train/images/b_mask.png").unlink()
    with pytest.raises(UserError, match=r"b\.png: has no mask of b_mask in"):
        load(tmp_path, masks="images", mask_suffix="_mask")


# --- names of slices


def test_a_slice_never_takes_the_name_of_a_file(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((16, 16, 2), np.int16))
    write_labels(tmp_path / "a_z001.png", IMAGE)
    with pytest.raises(UserError, match=r"a_z001\.png and .*a\.npy both give .* name a_z001"):
        load_images(tmp_path, size=16)
    write_mask(tmp_path / "masks/a.nii.gz", np.stack([MASK] * 2, -1))
    write_mask(tmp_path / "masks/a_z001.png", MASK)
    with pytest.raises(UserError, match=r"a_z001\.png and .*a\.nii\.gz both give"):
        read_masks(tmp_path / "masks")
