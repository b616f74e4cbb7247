"""Each format in and out through its own library, and what is said about files that are wrong."""

import h5py
import nibabel
import numpy as np
import pytest
import tifffile
from accl_harness.data.formats import (
    output_path,
    read_image,
    stem_of,
    suffix_of,
    write_labels,
    write_mask,
)
from accl_harness.data.pixels import to_unit_range
from accl_harness.errors import UserError
from PIL import Image

GREY = np.array([[0, 50, 100], [150, 200, 255]], np.uint8)
DEEP = np.array([[0, 1000, 40000], [7, 300, 65535]], np.uint16)
VOLUME = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
MASK = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)


def test_png_8_and_16_bit(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    Image.fromarray(DEEP).save(tmp_path / "deep.png")
    assert np.array_equal(read_image(tmp_path / "grey.png").array, GREY)
    deep = read_image(tmp_path / "deep.png").array
    assert deep.dtype == np.uint16
    assert np.array_equal(deep, DEEP)


def test_colour_becomes_luminance_in_every_format(tmp_path):
    rgb = np.zeros((2, 2, 3), np.uint8)
    rgb[0, 0], rgb[0, 1], rgb[1, 0], rgb[1, 1] = (255, 0, 0), (0, 255, 0), (0, 0, 255), 255
    Image.fromarray(rgb).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb")
    np.save(tmp_path / "a.npy", rgb)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = rgb
    for name in ("a.png", "a.tif", "a.npy", "a.h5"):
        assert read_image(tmp_path / name).array.tolist() == [[76, 150], [29, 255]], name
    with_alpha = np.dstack([rgb, np.full((2, 2), 128, np.uint8)])
    Image.fromarray(with_alpha).save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png").array.tolist() == [[76, 150], [29, 255]]


def test_jpeg(tmp_path):
    Image.fromarray(np.full((16, 16), 100, np.uint8)).save(tmp_path / "a.JPG")
    assert (read_image(tmp_path / "a.JPG").array == 100).all()


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_and_its_pages(tmp_path, compression):
    tifffile.imwrite(tmp_path / "flat.tif", DEEP, compression=compression)
    pages = np.moveaxis(VOLUME, -1, 0)
    tifffile.imwrite(
        tmp_path / "stack.tiff", pages, photometric="minisblack", compression=compression
    )
    assert np.array_equal(read_image(tmp_path / "flat.tif").array, DEEP)
    stack = read_image(tmp_path / "stack.tiff")
    assert stack.is_volume
    assert np.array_equal(stack.array, VOLUME)


def test_tiff_with_lzw(tmp_path):
    first, second = Image.fromarray(GREY), Image.fromarray(255 - GREY)
    first.save(tmp_path / "a.tif", compression="tiff_lzw", save_all=True, append_images=[second])
    assert np.array_equal(read_image(tmp_path / "a.tif").array, np.dstack([GREY, 255 - GREY]))


def test_tiff_with_colour_by_planes(tmp_path):
    rgb = np.zeros((3, 2, 2), np.uint8)
    rgb[0, 0, 0] = rgb[1, 0, 1] = rgb[2, 1, 0] = 255
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb", planarconfig="separate")
    assert read_image(tmp_path / "a.tif").array.tolist() == [[76, 150], [29, 0]]


def test_tiff_with_alpha_or_palette(tmp_path):
    alpha = np.stack([GREY, 255 - GREY], axis=-1)
    tifffile.imwrite(tmp_path / "alpha.tif", alpha, photometric="minisblack", planarconfig="contig")
    assert np.array_equal(read_image(tmp_path / "alpha.tif").array, GREY)
    colours = np.zeros((3, 256), np.uint16)
    colours[:, 1], colours[:, 2] = (65535, 0, 0), (0, 65535, 0)
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    tifffile.imwrite(tmp_path / "palette.tif", indices, photometric="palette", colormap=colours)
    assert read_image(tmp_path / "palette.tif").array.tolist() == [[0, 76], [150, 76]]
    assert np.array_equal(read_image(tmp_path / "palette.tif", "mask").array, indices)


def test_tiff_images_with_white_as_0(tmp_path):
    for white, black in ((MASK == 1, (1 - MASK) * 255), (GREY, 255 - GREY), (DEEP, 65535 - DEEP)):
        tifffile.imwrite(tmp_path / "a.tif", white, photometric="miniswhite")
        assert np.array_equal(read_image(tmp_path / "a.tif").array, black)


def test_tiff_of_several_images(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(GREY, photometric="minisblack")
        file.write(DEEP[:1], photometric="minisblack")
    with pytest.raises(UserError, match=r"a\.tif: holds 2 images of different size or kind"):
        read_image(tmp_path / "a.tif")


def test_npy(tmp_path):
    np.save(tmp_path / "a.npy", VOLUME.astype(">f4"))
    file = read_image(tmp_path / "a.npy", slices="last")
    assert file.array.dtype == np.dtype("=f4")
    assert np.array_equal(file.array, VOLUME)


def _save_nifti(path, array, unit="mm", zooms=(0.5, 1.5, 4.0)):
    affine = np.diag([*zooms, 1.0])
    affine[:3, 3] = -10, 20, 30
    affine[0, 1] = 0.25
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units(unit)
    image.header["descrip"] = b"a scan"
    image.header["cal_max"] = 77
    image.set_sform(affine, code=2)
    nibabel.save(image, path)
    return affine


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_mask_is_written_with_affine_and_header(tmp_path, suffix):
    affine = _save_nifti(tmp_path / f"scan{suffix}", VOLUME)
    file = read_image(tmp_path / f"scan{suffix}")
    assert np.array_equal(file.array, VOLUME)
    assert file.spacing == pytest.approx((0.5, np.hypot(1.5, 0.25)))

    mask = (VOLUME % 2).astype(np.uint8)
    write_mask(tmp_path / "out" / f"scan{suffix}", mask, file)
    written = nibabel.load(tmp_path / "out" / f"scan{suffix}")
    assert np.array_equal(np.asarray(written.dataobj), mask)
    assert written.get_data_dtype() == np.uint8
    assert np.array_equal(written.affine, affine)
    original = nibabel.load(tmp_path / f"scan{suffix}").header
    for key in original:
        if key == "cal_max":  # the window of the grey values would hide the mask
            assert written.header[key] == 0
        elif key not in ("datatype", "bitpix", "scl_slope", "scl_inter", "magic", "vox_offset"):
            assert np.array_equal(original[key], written.header[key], equal_nan=False), key


def test_nifti_scale_units_and_trailing_axes(tmp_path):
    _save_nifti(tmp_path / "micron.nii", VOLUME[..., None], unit="micron")
    file = read_image(tmp_path / "micron.nii")
    assert file.array.shape == VOLUME.shape
    assert file.spacing == pytest.approx((0.0005, np.hypot(1.5, 0.25) / 1000))
    write_mask(tmp_path / "out.nii", VOLUME > 3, file)
    assert nibabel.load(tmp_path / "out.nii").shape == (*VOLUME.shape, 1)


def test_hdf5_takes_the_dataset_of_the_role(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"], file["label"], file["scribble"] = GREY, MASK, MASK + 1
    assert np.array_equal(read_image(tmp_path / "a.h5").array, GREY)
    assert np.array_equal(read_image(tmp_path / "a.h5", "mask").array, MASK)
    assert np.array_equal(read_image(tmp_path / "a.h5", "weak").array, MASK + 1)
    with h5py.File(tmp_path / "single.hdf5", "w") as file:
        file["group/anything"] = DEEP
    assert np.array_equal(read_image(tmp_path / "single.hdf5").array, DEEP)
    with h5py.File(tmp_path / "many.h5", "w") as file:
        file["left"], file["right"] = GREY, GREY
    with pytest.raises(UserError, match=r"many\.h5.*'image'.*\['left', 'right'\]"):
        read_image(tmp_path / "many.h5")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("a.png", 255), ("a.bmp", 255), ("a.tif", 255)],
        *[("a.NPY", 1), ("a.h5", 1), ("a.nii", 1), ("a.nii.gz", 1)],
    ],
)
def test_masks_come_back_as_they_were_written(tmp_path, name, value):
    write_mask(tmp_path / name, MASK.astype(bool))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert np.array_equal(read_image(tmp_path / name, "mask").array, MASK * value)
    if name not in ("a.png", "a.bmp"):
        deep = np.zeros((8, 9, 3), bool)
        deep[2:5, 3, 1] = True
        write_mask(tmp_path / name, deep)
        assert np.array_equal(read_image(tmp_path / name, "mask").array, deep * value)


def test_a_mask_of_a_jpeg_or_gif_is_a_png(tmp_path):
    assert output_path("out", "in/a.b.jpeg").name == "a.b.png"
    assert output_path("out", "in/a.b.GIF").name == "a.b.png"
    assert output_path("out", "in/a.bmp").name == "a.bmp"
    assert output_path("out", "in/scan.nii.gz").name == "scan.nii.gz"
    with pytest.raises(UserError, match="lossless"):
        write_mask(tmp_path / "a.jpg", MASK)
    with pytest.raises(UserError, match="flat images"):
        write_labels(tmp_path / "a.png", VOLUME)


def test_stems_and_suffixes():
    assert (stem_of("x/scan.v2.nii.gz"), suffix_of("x/scan.v2.NII.GZ")) == ("scan.v2", ".nii.gz")
    assert (stem_of("a.PNG"), suffix_of("a.webp")) == ("a", "")


def _corrupt(path, **_):
    path.write_bytes(b"this is no image")


def _truncated(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1500])


def _truncated_nifti(path):
    nibabel.save(nibabel.Nifti1Image(np.ones((9, 9, 9), np.float32), np.eye(4)), path)
    path.write_bytes(path.read_bytes()[:-400])


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        *[(f"bad{s}", _corrupt, "cannot be read") for s in (".png", ".jpg", ".tif", ".npy", ".h5")],
        *[(f"bad{s}", _corrupt, "cannot be read") for s in (".gif", ".bmp", ".TIFF")],
        ("bad.nii", _corrupt, "cannot be read"),
        ("bad.nii.gz", _corrupt, "cannot be read"),
        ("cut.png", _truncated, "cannot be read"),
        ("cut.nii", _truncated_nifti, "cannot be read"),
        ("empty.png", lambda path: path.write_bytes(b""), "0 bytes"),
        ("link.png", lambda path: path.symlink_to("away.png"), "no such file.*away.png"),
        ("gone.png", lambda path: None, "no such file"),
        ("a.webp", _corrupt, "not a format"),
        ("four.npy", lambda path: np.save(path, np.zeros((2, 2, 2, 2))), r"\(2, 2, 2, 2\)"),
        ("zero.npy", lambda path: np.save(path, np.zeros((0, 5))), r"\(0, 5\)"),
        ("objects.npy", lambda path: np.save(path, np.array([[None]])), "cannot be read"),
        ("complex.npy", lambda path: np.save(path, np.zeros((2, 2), complex)), "complex128"),
        ("nan.npy", lambda path: np.save(path, np.array([[1, np.nan], [np.inf, 0]])), "2 values"),
    ],
)
def test_wrong_files_are_named(tmp_path, name, make, words):
    make(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}.*{words}") as error:
        read_image(tmp_path / name)
    assert "\n" not in str(error.value)


def test_grey_range_of_8_bit_and_deeper():
    assert to_unit_range(np.array([[0, 255]], np.uint8)).tolist() == [[-1.0, 1.0]]
    assert to_unit_range(np.array([[51]], np.uint8))[0, 0] == pytest.approx(-0.6)
    deep = to_unit_range(np.arange(1001, dtype=np.int16).reshape(7, 143) - 300)
    flat = deep.ravel()  # percentiles 0.5 and 99.5 of 0..1000 are 5 and 995
    assert flat[5] == -1
    assert flat[995] == 1
    assert flat[500] == pytest.approx(0, abs=1e-6)
    assert flat[0] == -1
    assert flat[1000] == 1
    assert deep.dtype == np.float32


def test_grey_range_of_constant_and_nearly_constant_images():
    assert (to_unit_range(np.full((3, 3), 9.5)) == -1).all()
    sparse = np.zeros((40, 40), np.uint16)
    sparse[3, 3] = 900
    assert to_unit_range(sparse)[3, 3] == 1
