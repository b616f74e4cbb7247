"""Decoding of pictures: every depth, byte order, compression and orientation, or a refusal."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from accl_harness.data.formats import read_image
from accl_harness.errors import UserError
from label_pictures import MASK, mask_of, painted, png
from PIL import Image


def test_grey_of_few_bits(tmp_path):
    for bits, value in ((1, 1), (2, 3), (2, 1), (4, 5)):
        png(tmp_path / "a.png", MASK * value, 0, bits)
        file = read_image(tmp_path / "a.png", "mask")
        assert file.array.tolist() == (MASK * value).tolist(), bits
        assert mask_of(tmp_path / "a.png") == MASK.tolist()
        scaled = MASK * value * (255 // (2**bits - 1))
        assert read_image(tmp_path / "a.png").array.tolist() == scaled.tolist()


@pytest.mark.parametrize("filtered", [False, True])
def test_16_bits_in_every_channel(tmp_path, filtered):
    deep = np.random.default_rng(0).integers(0, 65536, (12, 9, 4)).astype(np.uint16)
    for kind, channels in ((0, 1), (2, 3), (4, 2), (6, 4)):
        png(tmp_path / "a.png", deep[..., :channels], kind, 16)
        if filtered:  # the filters of a PNG go by the bytes of a pixel
            _refilter(tmp_path / "a.png", 2 * channels)
        image = read_image(tmp_path / "a.png").array
        assert image.dtype == np.uint16
        if channels in (1, 2):
            assert np.array_equal(image, deep[..., 0])
        else:
            expected = deep[..., :3].astype(float) @ (0.299, 0.587, 0.114)
            assert np.abs(image - expected).max() < 2
    png(tmp_path / "a.png", MASK[..., None] * np.uint16([1, 0, 0]), 2, 16)
    assert mask_of(tmp_path / "a.png") == MASK.tolist()
    png(tmp_path / "a.png", np.stack([MASK * 0, MASK * np.uint16(300)], -1), 4, 16)
    assert mask_of(tmp_path / "a.png") == MASK.tolist()


def _refilter(path, step):
    """Writes the rows of a 16-bit PNG with the filter Sub."""
    content = path.read_bytes()
    at = content.index(b"IDAT")
    length = struct.unpack(">I", content[at - 4 : at])[0]
    rows = np.frombuffer(zlib.decompress(content[at + 4 : at + 4 + length]), np.uint8)
    rows = rows.reshape(12, -1)[:, 1:].copy()
    rows[:, step:] -= rows[:, :-step].copy()
    data = zlib.compress(np.pad(rows, ((0, 0), (1, 0)), constant_values=1).tobytes())
    chunk = struct.pack(">I", len(data)) + b"IDAT" + data
    chunk += struct.pack(">I", zlib.crc32(b"IDAT" + data))
    path.write_bytes(content[: at - 4] + chunk + content[at + 8 + length :])


def lzw(data):
    """A valid LZW stream of literals alone, the table cleared before its codes grow."""
    codes = [code for at in range(0, len(data), 250) for code in (256, *data[at : at + 250])]
    bits = "".join(f"{code:09b}" for code in (*codes, 257))
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def lzw_tiff(path, array, byteorder, photometric):
    """A TIFF of 16 bits with LZW, which neither Pillow nor tifffile writes."""
    height, width, channels = array.shape
    kind = ">H" if byteorder == ">" else "<H"
    data = lzw(array.astype(byteorder + "u2").tobytes())
    bits_at = 8 + len(data)
    bits = struct.pack(kind, 16) * channels
    tags = [(256, 3, 1, width), (257, 3, 1, height), (259, 3, 1, 5), (262, 3, 1, photometric)]
    tags += [(273, 4, 1, 8), (277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, len(data))]
    tags += [(258, 3, channels, 16 if channels == 1 else bits_at)]
    tags += [(338, 3, 1, 2)] if channels == 4 else []
    entries = b""
    for tag, form, count, value in sorted(tags):
        entries += struct.pack(byteorder + "HHI", tag, form, count)
        short = form == 3 and count == 1
        entries += struct.pack(
            byteorder + ("HH" if short else "I"), *([value, 0] if short else [value])
        )
    end = struct.pack(byteorder + "H", len(tags)) + entries + bytes(4)
    magic = b"II*\0" if byteorder == "<" else b"MM\0*"
    path.write_bytes(magic + struct.pack(byteorder + "I", bits_at + len(bits)) + data + bits + end)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_tiff_with_lzw(tmp_path, byteorder, channels):
    deep = np.random.default_rng(0).integers(0, 65536, (12, 9, channels)).astype(np.uint16)
    lzw_tiff(tmp_path / "a.tif", deep, byteorder, 1 if channels == 1 else 2)
    image = read_image(tmp_path / "a.tif").array
    assert image.dtype == np.uint16
    grey = deep[..., :3].astype(float) @ (0.299, 0.587, 0.114) if channels > 1 else deep[..., 0]
    assert np.abs(image - grey).max() < 2
    label = MASK[..., None] * np.uint16([3, 0, 0, 0])[:channels]
    lzw_tiff(tmp_path / "b.tif", label, byteorder, 1 if channels == 1 else 2)
    assert mask_of(tmp_path / "b.tif", value=3) == MASK.tolist()


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_planes_of_colour_and_alpha(tmp_path, byteorder):
    planes = np.moveaxis(painted((255, 255, 255, 255), (255, 255, 255, 0)), -1, 0)
    for kind in ("u1", "u2"):
        tifffile.imwrite(
            tmp_path / "a.tif",
            planes.astype(byteorder + kind),
            photometric="rgb",
            planarconfig="separate",
            extrasamples=["unassalpha"],
            byteorder=byteorder,
        )
        assert mask_of(tmp_path / "a.tif") == MASK.tolist()


def test_cmyk(tmp_path):
    noisy = np.kron(MASK, np.ones((8, 8), np.uint8))
    Image.fromarray(np.stack([noisy * 255] * 3, -1)).convert("CMYK").save(tmp_path / "a.tif")
    assert mask_of(tmp_path / "a.tif", threshold=127) == noisy.tolist()


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("kind", ["i1", "i2", "u2", "i4", "f4", "f8"])
def test_tiff_of_any_number_type(tmp_path, byteorder, kind):
    array = MASK.astype(byteorder + kind)
    tifffile.imwrite(tmp_path / "a.tif", array, byteorder=byteorder, photometric="minisblack")
    assert mask_of(tmp_path / "a.tif") == MASK.tolist()
    assert read_image(tmp_path / "a.tif").array.dtype.isnative


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "zstd"])
def test_tiff_of_any_compression(tmp_path, compression):
    Image.fromarray(MASK * 200).save(tmp_path / "a.tif", compression=compression)
    assert mask_of(tmp_path / "a.tif") == MASK.tolist()


@pytest.mark.parametrize("compression", [None, "group4", "tiff_lzw", "tiff_adobe_deflate"])
def test_tiff_of_one_bit(tmp_path, compression):
    Image.fromarray(MASK > 0).save(tmp_path / "a.tif", compression=compression)
    assert mask_of(tmp_path / "a.tif") == MASK.tolist()
    assert read_image(tmp_path / "a.tif").array.tolist() == (MASK * 255).tolist()


@pytest.mark.parametrize("full", [1, 255, 65535])
def test_tiff_with_white_as_0(tmp_path, full):
    array = MASK * np.dtype(np.uint8 if full < 256 else np.uint16).type(full)
    array = array > 0 if full == 1 else array
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="miniswhite", byteorder=">")
    with pytest.raises(UserError, match=r"a\.tif: its stored values .*shown values.*MinIsWhite"):
        mask_of(tmp_path / "a.tif")
    assert mask_of(tmp_path / "a.tif", value=full) == MASK.tolist()


@pytest.mark.parametrize("mode", ["1", "L", "I;16"])
def test_tiff_with_white_as_0_and_lzw(tmp_path, mode):
    """Through Pillow, which inverts 1 and 8 bits, but not 16."""
    values = {"1": MASK > 0, "L": MASK * 255, "I;16": MASK * np.uint16(65535)}[mode]
    Image.fromarray(values).save(tmp_path / "a.tif", compression="tiff_lzw", tiffinfo={262: 0})
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages[0].photometric == tifffile.PHOTOMETRIC.MINISWHITE
    with pytest.raises(UserError, match="different labels"):
        mask_of(tmp_path / "a.tif")
    shown = read_image(tmp_path / "a.tif").array.astype(int)
    assert len(np.unique(shown)) == 2
    stored = read_image(tmp_path / "a.tif", "mask").array.astype(int)
    full = {"1": 255, "L": 255, "I;16": 65535}[mode]
    scale = 255 if mode == "1" else 1
    assert (shown + stored * scale == full).all()


def test_tiff_of_channels_is_refused(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((2, 12, 9), np.uint8), imagej=True, metadata={"axes": "CYX"}
    )
    with pytest.raises(UserError, match=r"a\.tif: holds 2 channels"):
        read_image(tmp_path / "a.tif")
    tifffile.imwrite(
        tmp_path / "b.tif",
        np.zeros((12, 9, 5), np.uint8),
        planarconfig="contig",
        photometric="minisblack",
    )
    with pytest.raises(UserError, match=r"b\.tif: holds 5 channels"):
        read_image(tmp_path / "b.tif")


def test_animations_are_refused(tmp_path):
    frames = [Image.fromarray(MASK * value) for value in (100, 200)]
    for name in ("a.gif", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(UserError, match=rf"{name}: holds 2 frames"):
            read_image(tmp_path / name)


# --- orientation


def _turned(stored, orientation):
    """Literally: where the first stored row and column go (EXIF 2.3, table of tag 274)."""
    return {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.T,
        6: stored[::-1].T,
        7: stored[::-1, ::-1].T,
        8: stored[:, ::-1].T,
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "lzw.tif"])
def test_orientation(tmp_path, orientation, kind):
    path = tmp_path / f"a.{kind}"
    image = Image.fromarray(np.kron(MASK, np.full((8, 8), 200, np.uint8)))
    if kind == "tif":
        tag = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(path, np.array(image), extratags=tag, photometric="minisblack")
    elif kind == "lzw.tif":
        image.save(path, compression="tiff_lzw", tiffinfo={274: orientation})
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(path, exif=exif, quality=95)
    expected = _turned(MASK, orientation)
    for role in ("image", "mask"):
        array = read_image(path, role).array
        assert array.shape == (8 * expected.shape[0], 8 * expected.shape[1])
        assert np.array_equal(array[4::8, 4::8] > 100, expected > 0), role
