"""Files that are sound, though a library's limit or the system refuses them."""

import errno
import fcntl
import os
import struct
import zlib

import h5py
import numpy as np
import pytest
from accl_harness.data import formats
from accl_harness.data.formats import read_image
from accl_harness.errors import UserError
from PIL import Image, PngImagePlugin

GREY = np.arange(40 * 48, dtype=np.uint32).reshape(40, 48).astype(np.uint8)


@pytest.fixture
def png(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(GREY).save(path)
    return path


def test_an_image_beyond_the_limit_of_pillow(png, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(png)
    assert (read_image(png).array == GREY).all()
    assert Image.MAX_IMAGE_PIXELS == 100  # as it was for everybody else


def test_a_png_with_megabytes_of_text(png):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    raw = png.read_bytes()
    text = chunk(b"zTXt", b"XML\0\0" + zlib.compress(b"<x>" * (1 << 20)))
    png.write_bytes(raw[:33] + text + raw[33:])
    with pytest.raises(ValueError, match="MAX_TEXT_CHUNK"):
        Image.open(png).load()
    assert (read_image(png).array == GREY).all()
    assert PngImagePlugin.MAX_TEXT_CHUNK < 1 << 21


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", "tiff_deflate"])
def test_reduced_pages_of_a_pyramid_are_no_slices(tmp_path, compression):
    pages = [Image.fromarray(GREY[:: 2**k, :: 2**k]) for k in range(3)]
    for k, page in enumerate(pages):
        page.encoderinfo = {"compression": compression, "tiffinfo": {254: int(k > 0)}}
    path = tmp_path / "a.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:], compression=compression)
    assert read_image(path).array.shape == GREY.shape


def test_pages_at_full_size_stay_slices(tmp_path):
    pages = [Image.fromarray(GREY + k) for k in range(3)]
    path = tmp_path / "a.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:], compression="tiff_lzw")
    assert (read_image(path).array == np.stack([GREY, GREY + 1, GREY + 2], -1)).all()


def test_a_file_that_another_program_has_open(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["image"] = GREY
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # as HDF5 locks a file that it writes to
        with pytest.raises(UserError) as caught:
            read_image(path)
    assert "another program has it open: close it there" in str(caught.value)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.EACCES, "give this user the right to read it"),
        (errno.EMFILE, "too many files are open"),
        (errno.EIO, "see that the disk is there, and try again"),
    ],
)
def test_errors_of_the_system_come_as_they_are(png, monkeypatch, code, advice):
    def refuse(path):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(formats, "read_pillow", refuse)
    with pytest.raises(UserError) as caught:
        read_image(png)
    text = str(caught.value)
    assert text.startswith(f"{png}: cannot be opened ([Errno {code}] {os.strerror(code)}")
    assert advice in text
    assert "damaged" not in text


def test_what_is_damaged_is_called_so_and_not_to_be_removed(png):
    png.write_bytes(png.read_bytes()[:60])
    with pytest.raises(UserError, match=r"is damaged .*: write it again from its source") as caught:
        read_image(png)
    assert "remove" not in str(caught.value)


@pytest.mark.parametrize(("slices", "shape"), [("auto", (40, 48)), ("last", (40, 48, 3))])
def test_three_slices_in_8_bit_look_like_colour_until_slices_says(tmp_path, slices, shape):
    path = tmp_path / "a.npy"
    np.save(path, np.stack([GREY] * 3, -1))
    assert read_image(path, slices=slices).array.shape == shape


def test_slices_first_in_8_bit(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.stack([GREY[:, :3]] * 5))
    assert read_image(path, slices="first").array.shape == (40, 3, 5)
