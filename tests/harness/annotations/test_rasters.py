"""Images of labels (napari, Fiji, ITK-SNAP, ilastik, paint programs), 3D Slicer's segments."""

import nibabel
import numpy as np
import pytest
import tifffile
from accl_harness.annotations.importing import import_labels
from accl_harness.annotations.options import ImportOptions
from accl_harness.annotations.tables import read_table
from accl_harness.cli import main
from accl_harness.data.class_names import read_class_names
from accl_harness.data.dataset import load_split
from accl_harness.data.formats import read_image
from accl_harness.data.options import WeakOptions
from accl_harness.errors import UserError
from PIL import Image

itk = pytest.importorskip("SimpleITK")

VALUES = np.zeros((6, 8), np.uint8)
VALUES[0], VALUES[2:4, 2:5] = 1, 2


@pytest.fixture
def folder(tmp_path):
    """One grey image; the labels go beside its folder."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.fromarray(np.full((6, 8), 50, np.uint8)).save(tmp_path / "images/a.png")
    return tmp_path


def take(folder, **options):
    return import_labels(folder / "labels", folder / "out", ImportOptions(**options))


def read(folder, to="weak", name="a.png"):
    return read_image(folder / "out/train" / to / name, "weak").array


def table(folder, text, name="table.yaml"):
    (folder / name).write_text(text)
    return str(folder / name)


def of_ilastik():
    """What ``--table ilastik`` makes of VALUES."""
    labels = np.full((6, 8), 255)
    labels[0], labels[2:4, 2:5] = 0, 1
    return labels


@pytest.mark.parametrize("tool", ["napari", "fiji", "png", "npy"])
def test_values(folder, tool):
    if tool == "napari":
        tifffile.imwrite(folder / "labels/a.tif", VALUES.astype(np.int32))
    elif tool == "fiji":
        tifffile.imwrite(folder / "labels/a.tif", VALUES.astype(np.uint16), imagej=True)
    elif tool == "npy":
        np.save(folder / "labels/a.npy", VALUES.astype(np.int64))
    else:
        Image.fromarray(VALUES).save(folder / "labels/a.png")
    with pytest.raises(UserError, match=r"holds the values 1, 2 beside 0; --table .*ilastik"):
        take(folder)
    take(folder, table="ilastik")
    assert np.array_equal(read(folder), of_ilastik())
    assert read_class_names(folder / "out") == ("background", "object")
    data = load_split(folder / "out", "train", size=16)
    assert sorted(data.weak_labels.unique().tolist()) == [0, 1, 255]


def test_each_value_a_class_and_all_values_one(folder):
    Image.fromarray(VALUES * 9).save(folder / "labels/a.png")  # 9 and 18
    take(folder, table="values", to="masks")
    assert np.array_equal(read(folder, "masks"), VALUES)
    assert read_class_names(folder / "out") == ("background", "value 9", "value 18")
    import_labels(folder / "labels", folder / "one", ImportOptions(table="instances", to="masks"))
    one = read_image(folder / "one/train/masks/a.png", "weak").array
    assert np.array_equal(one, VALUES > 0)


def test_one_value_is_the_object(folder):
    Image.fromarray(np.uint8(VALUES == 2) * 255).save(folder / "labels/a_mask.png")
    take(folder, mask_suffix="_mask")
    assert np.array_equal(read(folder), np.where(VALUES == 2, 1, 255))


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
def test_colours(folder, mode):
    colours = np.zeros((6, 8, 3), np.uint8)
    colours[0], colours[2:4, 2:5] = (0, 0, 255), (255, 128, 0)
    picture = Image.fromarray(colours)
    if mode == "RGBA":
        picture.putalpha(Image.fromarray(np.uint8(VALUES > 0) * 255))
    picture = picture.quantize(8) if mode == "P" else picture
    picture.save(folder / "labels/a.png")
    text = "#ff8000: object\n'0,0,255': background\n"
    take(folder, table=table(folder, text))
    assert np.array_equal(read(folder), of_ilastik())
    other = table(folder, '"#ff8000": object\n')
    words = r"1 colours are not in the table, most of all #0000ff \(8 pixels\)"
    if mode != "P":
        with pytest.raises(UserError, match=words):
            take(folder, table=other, replace=True)
    if mode == "RGB":
        with pytest.raises(UserError, match="is a picture in colours; --table FILE says"):
            take(folder, replace=True)


def test_a_soft_brush(folder):
    soft = np.linspace(0, 255, 48).reshape(6, 8).astype(np.uint8)
    Image.fromarray(soft).save(folder / "labels/a.png")
    take(folder, threshold=127)
    assert np.array_equal(read(folder), np.where(soft > 127, 1, 255))
    np.save(folder / "labels/a.npy", soft / 255)
    (folder / "labels/a.png").unlink()
    with pytest.raises(UserError, match="which are no labels; of a soft brush --threshold T"):
        take(folder, replace=True)


def test_labels_that_do_not_fit_their_image(folder):
    Image.fromarray(VALUES.T.copy()).save(folder / "labels/a.png")
    with pytest.raises(UserError, match=r"labels/a\.png: is 8 x 6, its image .*a\.png is 6 x 8"):
        take(folder, table="ilastik")
    (folder / "labels/a.png").rename(folder / "labels/b.png")
    with pytest.raises(UserError, match=r"labels/b\.png: its image b is not there; looked in "):
        take(folder, table="ilastik")


def test_tables_that_tools_write(folder):
    cvat = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nnerve cell:255,0,16::\n"
    assert read_table(table(folder, cvat, "labelmap.txt")) == {
        "#000000": "background",
        "#ff0010": "nerve cell",
    }
    snap = '# ITK-SnAP\n    0     0    0    0        0  0  0    "Clear Label"\n'
    snap += '    1   255    0    0        1  1  1    "left heart"\n'
    found = read_table(table(folder, snap, "labels.txt"))
    assert found == {"0": "unlabelled", "1": "left heart"}
    slicer = "# Color table file\n0 Background 0 0 0 0\n3 tumor 255 0 0 255\n"
    assert read_table(table(folder, slicer, "a.ctbl")) == {"0": "unlabelled", "3": "tumor"}
    for text, words in (("- a", "wanted lines of 'label: class'"), ("a: [", "is no YAML")):
        with pytest.raises(UserError, match=words):
            read_table(table(folder, text))
    with pytest.raises(UserError, match=r"cannot be read \(.*; or one of ilastik, values, inst"):
        read_table("nowhere")
    with pytest.raises(UserError, match="holds no line of a table"):
        read_table(table(folder, "hello", "a.txt"))


# --- volumes


@pytest.fixture
def volume(folder):
    """A volume of 5 slices of 7 rows and 9 columns, stored [x, y, z] with 1 x 1 x 4 mm voxels."""
    grey = np.arange(9 * 7 * 5, dtype=np.int16).reshape(9, 7, 5)
    image = nibabel.Nifti1Image(grey, np.diag([-1.0, -1.0, 4.0, 1.0]))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, folder / "images/v.nii.gz")
    return folder


def test_a_volume_of_itk_snap(volume):
    stored = np.zeros((9, 7, 5), np.uint16)
    stored[2:5, 3:5, 1] = 4
    stored[0, :, 2] = 1
    labels = nibabel.Nifti1Image(stored, np.diag([-1.0, -1.0, 4.0, 1.0]))
    nibabel.save(labels, volume / "labels/v.nii.gz")
    report = take(volume, table=table(volume, "1: background\n4: tumour\n"))
    back = np.asarray(nibabel.load(volume / "out/train/weak/v.nii.gz").dataobj)
    assert np.array_equal(back, np.select([stored == 4, stored == 1], [1, 0], 255))
    assert report["classes"]["tumour"] == {"index": 1, "files": 1, "shapes": 1, "pixels": 6}
    data = load_split(volume / "out", "train", size=16, weak=WeakOptions())
    assert len(data) == 5


def segmentation(path, layers, names, origin=(0.0, 0.0, 0.0)):
    """A file of 3D Slicer: layers [z, y, x] and (name, value, layer) of each segment."""
    if len(layers) > 1:
        image = itk.GetImageFromArray(np.stack(layers, -1), isVector=True)
    else:
        image = itk.GetImageFromArray(layers[0])
    image.SetSpacing((1.0, 1.0, 4.0))
    image.SetOrigin(origin)
    for index, (name, value, layer) in enumerate(names):
        about = {"ID": f"Segment_{index + 1}", "Name": name, "LabelValue": value, "Layer": layer}
        for key, text in about.items():
            image.SetMetaData(f"Segment{index}_{key}", str(text))
    itk.WriteImage(image, str(path), useCompression=True)


def test_segments_of_slicer_in_two_layers(volume):
    first, second = np.zeros((2, 5, 7, 9), np.uint8)
    first[1, 3:5, 2:5], first[4] = 1, 2
    second[2, 0] = 1
    names = [("tumour", 1, 0), ("background", 2, 0), ("vessel tree", 1, 1)]
    segmentation(volume / "labels/v.seg.nrrd", [first, second], names)
    take(volume)
    back = np.asarray(nibabel.load(volume / "out/train/weak/v.nii.gz").dataobj).T
    wanted = np.select([first == 1, first == 2, second == 1], [1, 0, 2], 255)
    assert np.array_equal(back, wanted)
    assert read_class_names(volume / "out") == ("background", "tumour", "vessel tree")
    second[1, 3, 2] = 1
    segmentation(volume / "labels/v.seg.nrrd", [first, second], names)
    with pytest.raises(UserError, match=r"1 pixels are both 'tumour' and 'vessel tree' .segment 2"):
        take(volume, replace=True)


def test_a_part_of_the_volume_is_put_in_its_place(volume):
    part = np.ones((2, 3, 4), np.uint8)
    segmentation(volume / "labels/v.seg.nrrd", [part], [("tumour", 1, 0)], (3.0, 2.0, 8.0))
    take(volume, to="masks")
    back = np.asarray(nibabel.load(volume / "out/train/masks/v.nii.gz").dataobj).T
    wanted = np.zeros((5, 7, 9))
    wanted[2:4, 2:5, 3:7] = 1
    assert np.array_equal(back, wanted)
    segmentation(volume / "labels/v.seg.nrrd", [part], [("tumour", 1, 0)], (7.0, 2.0, 8.0))
    with pytest.raises(UserError, match=r"12 of 24 marked voxels lie outside of its image"):
        take(volume, to="masks", replace=True)


def test_without_the_extra(volume, monkeypatch):
    segmentation(volume / "labels/v.seg.nrrd", [np.ones((5, 7, 9), np.uint8)], [("a", 1, 0)])
    monkeypatch.setattr("accl_harness.versions.find_spec", lambda name: None)
    words = r"3D Slicer needs SimpleITK, which is not installed: pip install .*the extra 'import'"
    with pytest.raises(UserError, match=words):
        take(volume)


def test_the_command_says_what_it_understood(folder, capsys):
    Image.fromarray(VALUES).save(folder / "labels/a.png")
    Image.fromarray(VALUES).save(folder / "images/b.png")
    words = ("import", folder / "labels", folder / "out", "--table", "ilastik")
    assert main([str(word) for word in words]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"images of labels: 1 image, labels in {folder}/out/train/weak",
        "0 background: 8 pixels (16.667 %) of 1 marks in 1 images",
        "1 object: 6 pixels (12.500 %) of 1 marks in 1 images",
        "left out, without labels: b.png",
        "what is not marked is unlabelled (255); --to masks makes it background",
    ]
    assert main([str(word) for word in words]) == 2
    assert "is there already; give --replace" in capsys.readouterr().err
    assert main([str(word) for word in (*words, "--replace")]) == 0
