"""Pictures of labels: every way to write the same mask is read as that mask, or refused."""

import numpy as np
import pytest
import tifffile
from accl_harness.data.formats import read_image
from accl_harness.data.options import WeakOptions
from accl_harness.data.weak_files import weak_values
from accl_harness.errors import UserError
from label_pictures import MASK, mask_of, painted, png
from PIL import Image


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
