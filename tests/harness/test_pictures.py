"""Pictures of labels: every way to write the same mask is read as that mask, or refused."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from accl_harness.data.formats import read_image
from accl_harness.data.labels import binary_mask, weak_values
from accl_harness.data.options import WeakOptions
from accl_harness.errors import UserError
from PIL import Image

MASK = np.zeros((12, 9), np.uint8)
MASK[2:6, 1:8] = 1  # 28 of 108 pixels, off centre in both axes


def mask_of(path, **options):
    return binary_mask(read_image(path, "mask"), **options)[0].tolist()


def painted(inside, outside):
    """A picture [H, W, channels] of two colours."""
    return np.where(MASK[..., None] > 0, np.array(inside), np.array(outside)).astype(np.uint8)


def png(path, array, kind, bits, palette=None, clear=None):
    """A PNG by the book, for the kinds that Pillow cannot write."""
    rows = array.astype(">u2") if bits == 16 else array.astype(np.uint8)
    if bits < 8:
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % (8 // bits))))
        rows = rows.reshape(len(rows), -1, 8 // bits)
        shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
        rows = (rows << shifts).sum(-1).astype(np.uint8)

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    height, width = array.shape[:2]
    content = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    content += chunk(b"PLTE", bytes(palette)) if palette else b""
    content += chunk(b"tRNS", clear) if clear else b""
    content += chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b""))


def indexed(path, indices, palette, **options):
    image = Image.fromarray(indices, "P")
    image.putpalette(palette)
    image.save(path, **options)


# --- transparency


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ((255, 255, 255, 255), (255, 255, 255, 0)),  # the object in the transparency alone
        ((0, 0, 0, 255), (0, 0, 0, 0)),  # black on nothing
        ((255, 255, 255, 255), (0, 0, 0, 0)),
        ((200, 0, 0, 255), (255, 255, 255, 0)),
        ((200, 0, 0, 128), (0, 0, 0, 0)),
        ((255, 255, 255, 7), (0, 0, 0, 7)),  # the same all over says nothing
        ((255, 255), (255, 0)),
        ((0, 255), (0, 0)),
        ((255, 255), (0, 255)),
    ],
)
def test_transparency(tmp_path, name, inside, outside):
    array = painted(inside, outside)
    if name == "a.png":
        Image.fromarray(array, {2: "LA", 4: "RGBA"}[array.shape[-1]]).save(tmp_path / name)
    else:
        kind = "rgb" if array.shape[-1] == 4 else "minisblack"
        tifffile.imwrite(
            tmp_path / name,
            array,
            photometric=kind,
            extrasamples=["unassalpha"],
            planarconfig="contig",
        )
    assert mask_of(tmp_path / name) == MASK.tolist()


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ((0, 0, 0, 255), (255, 255, 255, 0)),  # the object is drawn in black, or cut out
        ((255, 255, 255, 0), (0, 0, 0, 255)),
    ],
)
def test_transparency_against_colour(tmp_path, inside, outside):
    Image.fromarray(painted(inside, outside), "RGBA").save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: its .*transparency.* mean different labels"):
        mask_of(tmp_path / "a.png")


def test_an_opaque_background_and_a_transparent_margin(tmp_path):
    array = painted((255, 255, 255, 255), (0, 0, 0, 255))
    array[9:] = 0
    Image.fromarray(array, "RGBA").save(tmp_path / "a.png")
    assert mask_of(tmp_path / "a.png") == MASK.tolist()


def test_several_classes_on_nothing_are_not_one_object(tmp_path):
    array = painted((200, 0, 0, 255), (0, 0, 0, 0))
    array[3, 2] = 0, 200, 0, 255
    Image.fromarray(array, "RGBA").save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png.*holds #000000 \(0\), #00c800 \(51200\), #c80000"):
        mask_of(tmp_path / "a.png")


def test_soft_edges_in_the_transparency(tmp_path):
    array = painted((9, 9, 9, 255), (9, 9, 9, 0))
    array[2, 1:8, 3] = 90
    Image.fromarray(array, "RGBA").save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"holds 0, 90, 255.*--mask-threshold"):
        mask_of(tmp_path / "a.png")
    soft = MASK.copy()
    soft[2] = 0
    assert mask_of(tmp_path / "a.png", threshold=128) == soft.tolist()


def test_one_colour_that_stands_for_transparent(tmp_path):
    png(tmp_path / "a.png", painted((9, 9, 9), (255, 255, 255)), 2, 8, clear=b"\0\xff" * 3)
    with pytest.raises(UserError, match="holds"):  # two colours, none black: either may be it
        mask_of(tmp_path / "b.png") if (tmp_path / "b.png").exists() else _two_colours(tmp_path)
    assert mask_of(tmp_path / "a.png") == MASK.tolist()


def _two_colours(folder):
    Image.fromarray(painted((9, 9, 9), (255, 255, 255))).save(folder / "b.png")
    return mask_of(folder / "b.png")


def test_an_image_in_the_transparency_is_refused(tmp_path):
    Image.fromarray(painted((7, 7, 7, 255), (7, 7, 7, 90)), "RGBA").save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: .*what it shows is in its transparency"):
        read_image(tmp_path / "a.png")


# --- palettes

BLACK_WHITE = [0, 0, 0, 255, 255, 255]
WHITE_BLACK = [255, 255, 255, 0, 0, 0]


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.bmp", "a.tif"])
@pytest.mark.parametrize(
    "palette",
    [
        BLACK_WHITE,
        [0, 0, 0, 128, 0, 0],
        [68, 1, 84, 253, 231, 37],  # dark purple and yellow: the darker is the background
        [0, 0, 0] * 2,  # shows nothing, says nothing
    ],
)
def test_palettes_whose_order_agrees(tmp_path, name, palette):
    indexed(tmp_path / name, MASK, palette)
    assert mask_of(tmp_path / name) == MASK.tolist()


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.bmp", "a.tif"])
@pytest.mark.parametrize("palette", [WHITE_BLACK, [255, 255, 255, 1, 1, 1], [0, 200, 0, 90, 0, 0]])
def test_palettes_whose_order_is_reversed(tmp_path, name, palette):
    indexed(tmp_path / name, MASK, palette)
    with pytest.raises(UserError, match=rf"{name}.*palette.*different labels.*--mask-value"):
        mask_of(tmp_path / name)


def test_a_reversed_palette_by_the_index(tmp_path):
    indexed(tmp_path / "a.png", MASK, WHITE_BLACK)
    assert mask_of(tmp_path / "a.png", value=1) == MASK.tolist()
    assert mask_of(tmp_path / "a.png", value=0) == (1 - MASK).tolist()
    with pytest.raises(UserError, match="different labels"):
        mask_of(tmp_path / "a.png", threshold=0)


def test_quantized_pictures(tmp_path):
    """Pillow numbers the colours as it likes, here white first."""
    picture = Image.fromarray(painted((255,) * 3, (0,) * 3)).quantize(2)
    picture.save(tmp_path / "a.png")
    with pytest.raises(UserError, match="different labels"):
        mask_of(tmp_path / "a.png")


def test_colours_decide_where_no_index_is_0(tmp_path):
    indexed(tmp_path / "a.png", MASK + 1, [9, 9, 9, *BLACK_WHITE])
    assert mask_of(tmp_path / "a.png") == MASK.tolist()


@pytest.mark.parametrize(("value", "told"), [(0, False), (40, False), (255, True)])
def test_masks_of_one_index(tmp_path, value, told):
    """Index 0 in a dark colour is an empty mask, in a bright one it may be a full one."""
    indexed(tmp_path / "a.png", MASK * 0, [value, value, value, 60, 70, 80])
    if told:
        with pytest.raises(UserError, match="different labels"):
            mask_of(tmp_path / "a.png")
    else:
        assert not np.any(mask_of(tmp_path / "a.png"))


def test_class_indices_with_a_colour_map(tmp_path):
    classes = MASK * 15
    classes[8, 2:5] = 3
    palette = np.random.default_rng(0).integers(1, 255, (256, 3), np.uint8)
    palette[0] = 0
    indexed(tmp_path / "a.png", classes, palette.tobytes())
    assert mask_of(tmp_path / "a.png", value=15) == MASK.tolist()
    assert mask_of(tmp_path / "a.png", value=3) == (classes == 3).astype(int).tolist()
    with pytest.raises(UserError, match=r"holds 0, 3, 15; .*--mask-value"):
        mask_of(tmp_path / "a.png")
    assert mask_of(tmp_path / "a.png", threshold=3) == MASK.tolist()


def test_a_transparent_index(tmp_path):
    indexed(tmp_path / "a.png", MASK, [255, 255, 255, 200, 0, 0], transparency=0)
    assert mask_of(tmp_path / "a.png") == MASK.tolist()
    indexed(tmp_path / "b.png", MASK, WHITE_BLACK, transparency=0)
    assert mask_of(tmp_path / "b.png") == MASK.tolist()
    indexed(tmp_path / "a.gif", MASK, [0, 0, 0, 200, 0, 0], transparency=0)
    assert mask_of(tmp_path / "a.gif") == MASK.tolist()


def test_palettes_of_tiff_pages(tmp_path):
    colours = np.zeros((3, 256), np.uint16)
    colours[:, 0] = 65535
    tifffile.imwrite(
        tmp_path / "a.tif", np.stack([MASK] * 3), photometric="palette", colormap=colours
    )
    with pytest.raises(UserError, match="different labels"):
        mask_of(tmp_path / "a.tif")
    volume = np.stack([MASK] * 3, -1)
    assert mask_of(tmp_path / "a.tif", value=1) == volume.tolist()


# --- colours


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
@pytest.mark.parametrize(
    "colour", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (255, 0, 0), (7, 7, 7), (1, 0, 1), (255, 255, 0)]
)
def test_one_colour_on_black(tmp_path, name, colour):
    Image.fromarray(painted(colour, (0, 0, 0))).save(tmp_path / name)
    assert mask_of(tmp_path / name) == MASK.tolist()
    assert mask_of(tmp_path / name, threshold=0) == MASK.tolist()


def test_a_class_in_one_channel(tmp_path):
    array = painted((5, 0, 0), (0, 0, 0))
    array[8] = 1, 0, 0
    Image.fromarray(array).save(tmp_path / "a.png")
    assert mask_of(tmp_path / "a.png", value=5) == MASK.tolist()
    with pytest.raises(UserError, match="holds 0, 1, 5"):
        mask_of(tmp_path / "a.png")
    array[9] = 1, 200, 3  # an instance's number beside the class
    Image.fromarray(array).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: --mask-value 5 is no colour .* several channels"):
        mask_of(tmp_path / "a.png", value=5)


def test_colours_of_equal_luminance_stay_apart(tmp_path):
    array = painted((255, 0, 0), (0, 0, 0))
    array[8] = 0, 130, 0  # 76 as well
    Image.fromarray(array).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"#008200 \(33280\), #ff0000 \(16711680\)"):
        mask_of(tmp_path / "a.png")
    assert mask_of(tmp_path / "a.png", value=0xFF0000) == MASK.tolist()


def test_grey_in_colour_channels(tmp_path):
    Image.fromarray(painted((255,) * 3, (0,) * 3)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", "mask").array.tolist() == (MASK * 255).tolist()


def test_noise_of_a_jpeg_wants_a_threshold(tmp_path):
    noisy = np.roll(np.kron(MASK, np.ones((8, 8), np.uint8)), 3, (0, 1))
    for name, array in (
        ("a.jpg", noisy * 255),
        ("b.jpg", np.stack([noisy * 250] * 2 + [noisy], -1)),
    ):
        Image.fromarray(array).save(tmp_path / name, quality=60)
        with pytest.raises(UserError, match=rf"{name}.*values\).*--mask-threshold"):
            mask_of(tmp_path / name)
        assert (np.array(mask_of(tmp_path / name, threshold=127)) == noisy).mean() > 0.99


# --- depth


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


# --- weak labels

SCRIBBLE = np.full((6, 8), 255, np.uint8)
SCRIBBLE[1, 2:6] = 1
SCRIBBLE[4, 1:7] = 0


def weak_of(path, **options):
    return weak_values(read_image(path, "weak"), WeakOptions(**options)).tolist()


def test_weak_labels_as_pictures(tmp_path):
    Image.fromarray(SCRIBBLE).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([SCRIBBLE] * 3, -1)).save(tmp_path / "rgb.png")
    red = np.stack([SCRIBBLE, SCRIBBLE * 0, SCRIBBLE * 0], -1)
    Image.fromarray(red).save(tmp_path / "red.png")
    palette = np.random.default_rng(0).integers(0, 255, (256, 3), np.uint8)
    indexed(tmp_path / "index.png", SCRIBBLE, palette.tobytes())
    Image.fromarray(SCRIBBLE).save(tmp_path / "grey.gif")  # renumbers the greys
    Image.fromarray(SCRIBBLE).save(tmp_path / "grey.bmp")
    for path in sorted(tmp_path.iterdir()):
        assert weak_of(path) == SCRIBBLE.tolist(), path.name


def test_weak_labels_in_two_readings(tmp_path):
    """Index 1 of a grey palette may mean the foreground, or the 255 that it shows."""
    indexed(tmp_path / "a.png", (SCRIBBLE == 255).astype(np.uint8), BLACK_WHITE)
    with pytest.raises(UserError, match=r"a\.png: its palette indices and its palette colours"):
        weak_of(tmp_path / "a.png")


def test_painted_scribbles(tmp_path):
    array = np.zeros((*SCRIBBLE.shape, 4), np.uint8)
    array[SCRIBBLE == 1] = 255, 0, 0, 255
    array[SCRIBBLE == 0] = 0, 255, 0, 255
    Image.fromarray(array, "RGBA").save(tmp_path / "a.png")
    with pytest.raises(
        UserError, match=r"#00ff00 \(65280\), #ff0000 \(16711680\); weak.background"
    ):
        weak_of(tmp_path / "a.png")
    codes = {"foreground": 0xFF0000, "background": 0x00FF00, "unlabelled": 0}
    assert weak_of(tmp_path / "a.png", **codes) == SCRIBBLE.tolist()
