"""Volumes: where the slices are, where the voxels lie in the world, and what is written back."""

import itertools
import warnings

import h5py
import nibabel
import numpy as np
import pytest
import tifffile
from accl_harness.data.dataset import load_images, load_split
from accl_harness.data.formats import read_image, write_labels, write_mask
from accl_harness.data.pairing import read_partner
from accl_harness.errors import HarnessWarning, UserError

RNG = np.random.default_rng(0)
SLICES = RNG.integers(0, 90, (5, 24, 20)).astype(np.int16)
"""Five slices of 24 x 20, the slices on the first axis."""
VOLUME = np.moveaxis(SLICES, 0, -1)
MASK = (VOLUME > 60).astype(np.uint8)
AFFINE = np.array([[1.5, 0.1, 0, -30], [-0.1, 1.2, 0, 12], [0, 0, 8, 40], [0, 0, 0, 1.0]])


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="minisblack")
    elif path.suffix in (".nrrd", ".mha"):
        itk = pytest.importorskip("SimpleITK")
        itk.WriteImage(itk.GetImageFromArray(array), str(path))
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["image"] = array
    else:
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
    return path


def nifti(path, array, affine, **codes):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    for form, code in codes.items():
        getattr(image, f"set_{form}")(affine, code=code)
    nibabel.save(image, path)
    return path


# --- the axis of the slices


@pytest.mark.parametrize("name", ["a.npy", "a.h5", "a.nii", "a.tif", "a.mha"])
@pytest.mark.parametrize("stored", [SLICES, VOLUME])
def test_the_axis_of_the_slices_is_guessed_aloud(tmp_path, name, stored):
    path = save(tmp_path / name, stored)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        data = load_images(tmp_path, size=16)
    assert data.full_shapes == [(24, 20)] * 5
    usual = (stored is SLICES) == (name in ("a.tif", "a.mha"))
    assert len(told) == (not usual)
    if told:
        assert issubclass(told[0].category, HarnessWarning)
        axis = "first" if stored is SLICES else "last"
        size = " x ".join(map(str, stored.shape))
        assert str(told[0].message).startswith(f"{path}: {size}: the {axis} axis is taken for")
        assert "--slices" in str(told[0].message)
    file = read_image(path)
    assert np.array_equal(file.array, VOLUME)
    # What is written for it lies as the image does.
    write_mask(tmp_path / "out" / name, MASK, file)
    written = read_image(tmp_path / "out" / name, "mask")
    assert np.array_equal(written.array != 0, MASK)
    assert written.layout.shape == stored.shape


def test_guesses_are_told_once_a_folder(tmp_path):
    for name in ("a.npy", "b.npy", "c.npy"):
        save(tmp_path / name, SLICES)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        load_images(tmp_path, size=16)
    (warning,) = told
    assert str(warning.message).startswith(f"{tmp_path}/a.npy (and 2 more): 5 x 24 x 20")


def test_guesses_that_differ_are_refused(tmp_path):
    save(tmp_path / "a.npy", SLICES)
    save(tmp_path / "b.npy", VOLUME)
    words = r"a\.npy seems to have its slices on the first axis, b\.npy on the last; give --slices"
    with pytest.raises(UserError, match=words):
        load_images(tmp_path, size=16)
    assert len(load_images(tmp_path, size=16, slices="first")) == 5 + 24


@pytest.mark.parametrize("name", ["a.npy", "a.h5", "a.nii", "a.tif"])
def test_the_axis_of_the_slices_by_option(tmp_path, name):
    cube = np.arange(64, dtype=np.int16).reshape(4, 4, 4)
    path = save(tmp_path / name, cube)
    last, first = read_image(path, slices="last"), read_image(path, slices="first")
    assert np.array_equal(last.array, cube)
    assert np.array_equal(first.array, np.moveaxis(cube, 0, -1))
    assert last.layout.sure
    assert first.layout.sure
    expected = first if name == "a.tif" else last
    assert np.array_equal(read_image(path).array, expected.array)
    # Nothing in an array says where the slices are.
    assert read_image(path).layout.sure == (name in ("a.nii", "a.tif"))


@pytest.mark.parametrize(
    ("shape", "first", "sure"),
    [
        ((8, 64, 64), True, False),
        ((40, 64, 64), True, False),  # the square side
        ((64, 64, 90), False, True),
        ((64, 64, 8), False, True),
        ((60, 48, 40), False, False),
    ],
)
def test_shapes_of_arrays(tmp_path, shape, first, sure):
    file = read_image(save(tmp_path / "a.npy", np.zeros(shape, np.int16)))
    assert file.array.shape == ((*shape[1:], shape[0]) if first else shape)
    assert file.layout.sure == sure


def test_thick_slices_tell_their_axis(tmp_path):
    path = nifti(tmp_path / "a.nii", np.zeros((20, 24, 22), np.int16), np.diag([8.0, 1.2, 1.5, 1]))
    file = read_image(path)
    assert file.array.shape == (24, 22, 20)
    assert file.spacing == pytest.approx((1.2, 1.5))
    assert not file.layout.sure


@pytest.mark.parametrize("shape", [(1, 24, 20), (24, 20, 1), (1, 24, 20, 1), (1, 1, 24, 20)])
@pytest.mark.parametrize("name", ["a.npy", "a.h5"])
def test_single_axes_around_an_image(tmp_path, shape, name, recwarn):
    images, masks = tmp_path / "train/images", tmp_path / "train/masks"
    save(images / name, SLICES[0].reshape(shape))
    save(masks / name, MASK[..., 0])
    data = load_split(tmp_path, "train", size=8, weak=None)
    assert data.names == ["a"]
    assert np.array_equal(data.full_masks[0], MASK[..., 0])
    write_mask(tmp_path / name, MASK[..., 0], read_image(images / name))
    assert read_image(tmp_path / name).layout.shape == shape
    assert not recwarn.list


def test_slices_of_a_set_are_read_and_read_again_alike(tmp_path):
    cube = RNG.integers(0, 900, (16, 16, 16)).astype(np.int16)
    save(tmp_path / "a.npy", cube)
    data = load_images(tmp_path, size=16, slices="first")
    again = np.stack([data.full_image(z) for z in range(16)])
    assert np.allclose(data.images[:, 0].numpy(), again)
    assert np.array_equal(np.argsort(again[3].ravel())[:1], np.argsort(cube[3].ravel())[:1])


# --- the world


def test_axes_turned_and_flipped_are_laid_on_the_image(tmp_path):
    image = read_image(nifti(tmp_path / "image.nii", VOLUME, AFFINE))
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            turn = np.zeros((4, 4))
            turn[3, 3] = 1
            stored = MASK.transpose(axes)
            for place, axis in enumerate(axes):
                turn[axis, place] = signs[place]
                turn[axis, 3] += MASK.shape[axis] - 1 if signs[place] < 0 else 0
            stored = stored[tuple(slice(None, None, sign) for sign in signs)]
            path = nifti(tmp_path / "mask.nii", np.ascontiguousarray(stored), AFFINE @ turn)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                file = read_partner(path, "mask", image, "auto")
            assert np.array_equal(file.array, MASK), (axes, signs)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a @ np.diag([1, 1.1, 1, 1]),
        lambda a: a @ np.diag([-1, 1, 1, 1]),  # flipped about another place
        lambda a: a + np.array([[0, 0, 0, 3.0], [0] * 4, [0] * 4, [0] * 4]),
        lambda a: np.array([[0.98, 0.2, 0, 0], [-0.2, 0.98, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ a,
    ],
)
def test_another_place_in_the_world_is_refused(tmp_path, change):
    image = read_image(nifti(tmp_path / "image.nii", VOLUME, AFFINE))
    path = nifti(tmp_path / "mask.nii", MASK, change(AFFINE))
    words = (
        r"mask\.nii: lies elsewhere .* image .*image\.nii \(24 x 20 x 5 voxels of .* mm, axes to"
    )
    with pytest.raises(UserError, match=words):
        read_partner(path, "mask", image, "auto")


def test_a_rounded_affine_is_the_same_place(tmp_path):
    image = read_image(nifti(tmp_path / "image.nii", VOLUME, AFFINE))
    path = nifti(tmp_path / "mask.nii", MASK, AFFINE + 1e-3)
    assert np.array_equal(read_partner(path, "mask", image, "auto").array, MASK)


def test_the_unit_of_the_affine_counts(tmp_path):
    image = read_image(nifti(tmp_path / "image.nii", VOLUME, AFFINE))
    metres = nibabel.Nifti1Image(
        MASK[::-1].copy(),
        np.diag([1e-3, 1e-3, 1e-3, 1])
        @ AFFINE
        @ np.array([[-1, 0, 0, 23], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    )
    metres.header.set_xyzt_units("meter")
    nibabel.save(metres, tmp_path / "mask.nii")
    assert np.array_equal(read_partner(tmp_path / "mask.nii", "mask", image, "auto").array, MASK)


def test_either_form_of_the_image_may_be_the_masks(tmp_path):
    """ITK takes the qform where a file has two that differ, nibabel the sform."""
    other = AFFINE.copy()
    other[0, 3] += 50
    image = nibabel.Nifti1Image(VOLUME, AFFINE)
    image.set_sform(AFFINE, code=2)
    image.set_qform(other, code=1)
    nibabel.save(image, tmp_path / "image.nii")
    qform = nibabel.load(tmp_path / "image.nii").get_qform()
    path = nifti(tmp_path / "mask.nii", MASK, qform)
    image = read_image(tmp_path / "image.nii")
    assert np.array_equal(read_partner(path, "mask", image, "auto").array, MASK)


@pytest.mark.parametrize("codes", [{}, {"sform": 0, "qform": 0}])
def test_a_mask_without_a_place_is_laid_on_voxel_by_voxel(tmp_path, codes, recwarn):
    image = read_image(nifti(tmp_path / "image.nii", VOLUME, AFFINE))
    path = nifti(tmp_path / "mask.nii", MASK, np.eye(4), **codes)
    assert np.array_equal(read_partner(path, "mask", image, "auto").array, MASK)
    told = [str(warning.message) for warning in recwarn.list]
    if not codes:  # an identity that somebody stated is told
        assert len(told) == 1
        assert "mask.nii: states no position" in told[0]
    else:
        assert not told


def test_flat_files_are_turned_as_well(tmp_path):
    flip = np.array([[-1, 0, 0, 23], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    image = read_image(nifti(tmp_path / "image.nii", VOLUME[..., 0], AFFINE))
    path = nifti(tmp_path / "mask.nii", MASK[::-1, :, 0].copy(), AFFINE @ flip)
    assert np.array_equal(read_partner(path, "mask", image, "auto").array, MASK[..., 0])


# --- headers


@pytest.mark.parametrize("code", [7, 56, 255])
def test_unknown_codes_of_units(tmp_path, code):
    path = nifti(tmp_path / "a.nii", VOLUME, AFFINE)
    raw = bytearray(path.read_bytes())
    raw[123] = code
    path.write_bytes(raw)
    file = read_image(path)
    assert np.array_equal(file.array, VOLUME)
    assert file.spacing == pytest.approx(tuple(np.linalg.norm(AFFINE[:3, :2], axis=0)))
    write_mask(tmp_path / "out.nii", MASK, file)
    assert np.array_equal(read_image(tmp_path / "out.nii", "mask").array, MASK)


def test_a_header_without_sizes(tmp_path):
    path = nifti(tmp_path / "a.nii", VOLUME, AFFINE, sform=0, qform=0)
    raw = bytearray(path.read_bytes())
    raw[80:92] = np.array([np.nan, 0, np.inf], "<f4").tobytes()
    path.write_bytes(raw)
    file = read_image(path)
    assert file.spacing is None
    assert np.array_equal(file.array, VOLUME)


def test_four_axes(tmp_path):
    path = save(tmp_path / "a.nii", np.zeros((9, 8, 3, 2), np.int16))
    with pytest.raises(UserError, match=r"a\.nii: has 4 axes \(9, 8, 3, 2\).*time or channel"):
        read_image(path)


def test_colours_in_nifti(tmp_path):
    rgb = np.zeros((8, 9), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["R"][2:4, 3] = 255
    path = save(tmp_path / "a.nii", rgb)
    assert read_image(path).array[2, 3] == 76
    assert read_image(path, "mask").array.sum() == 2 * 255


# --- NRRD and MetaImage


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_itk_formats(tmp_path, suffix):
    itk = pytest.importorskip("SimpleITK")
    image = itk.GetImageFromArray(SLICES)
    image.SetSpacing((1.5, 1.25, 8))
    image.SetOrigin((-30, 12, 40))
    image.SetDirection((0, -1, 0, 1, 0, 0, 0, 0, 1))
    itk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    file = read_image(tmp_path / f"a{suffix}")
    assert np.array_equal(file.array, VOLUME)
    assert file.spacing == (1.25, 1.5)
    write_labels(tmp_path / "out" / f"a{suffix}", MASK, file)
    written = itk.ReadImage(str(tmp_path / "out" / f"a{suffix}"))
    assert np.array_equal(itk.GetArrayFromImage(written), np.moveaxis(MASK, -1, 0))
    assert written.GetPixelIDTypeAsString() == "8-bit unsigned integer"
    for name in ("Spacing", "Origin", "Direction"):
        assert getattr(written, f"Get{name}")() == pytest.approx(getattr(image, f"Get{name}")())
    # ITK's own NIfTI of the mask, whose axes run otherwise, lies on it.
    mask = itk.GetImageFromArray(np.moveaxis(MASK, -1, 0))
    mask.CopyInformation(image)
    itk.WriteImage(mask, str(tmp_path / "mask.nii.gz"))
    assert read_image(tmp_path / "mask.nii.gz").array.shape == (20, 24, 5)
    partner = read_partner(tmp_path / "mask.nii.gz", "mask", file, "auto")
    assert np.array_equal(partner.array, MASK)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_flat_itk_files_have_rows_and_columns_as_pictures(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}", SLICES[0])
    assert np.array_equal(read_image(path).array, SLICES[0])
    write_mask(tmp_path / f"b{suffix}", MASK[..., 0])
    assert np.array_equal(read_image(tmp_path / f"b{suffix}", "mask").array, MASK[..., 0])


def test_itk_formats_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "SimpleITK", None)
    (tmp_path / "a.mha").write_bytes(b"ObjectType = Image")
    with pytest.raises(UserError, match=r"a\.mha: .*pip install SimpleITK"):
        read_image(tmp_path / "a.mha")
