"""Files as LabelMe, COCO, CVAT and QuPath write them, drawn on 8 x 6 pixels, read back by pixel."""

import base64
import io
import json

import numpy as np
import pytest
from accl_harness.annotations.importing import import_labels
from accl_harness.annotations.options import ImportOptions
from accl_harness.data.class_names import read_class_names
from accl_harness.data.formats import read_image
from accl_harness.errors import UserError
from PIL import Image

pycocotools = pytest.importorskip("pycocotools.mask")

W, H = 8, 6
SQUARE = [[1, 1], [4, 1], [4, 3], [1, 3]]


@pytest.fixture
def images(tmp_path):
    """Two images, of different grey."""
    folder = tmp_path / "labels"
    folder.mkdir()
    for index, name in enumerate(("a.png", "b.png")):
        Image.fromarray(np.full((H, W), 50 + index, np.uint8)).save(folder / name)
    return folder


def read(tmp_path, name="a", to="weak"):
    """The labels that were written: 0 to 9, and . for unlabelled."""
    array = read_image(tmp_path / "out/train" / to / f"{name}.png", "weak").array
    return ["".join("." if value == 255 else str(value) for value in row) for row in array]


def take(tmp_path, source=None, **options):
    return import_labels(source or tmp_path / "labels", tmp_path / "out", ImportOptions(**options))


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def png(mask):
    file = io.BytesIO()
    Image.fromarray(np.uint8(mask) * 255).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def labelme(*shapes, image="a.png", size=(H, W), **more):
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": [
            {"label": label, "points": points, "shape_type": kind, "group_id": None, **rest}
            for label, kind, points, rest in ((*shape, {})[:4] for shape in shapes)
        ],
        "imagePath": image,
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
        **more,
    }


def test_labelme(tmp_path, images):
    write(
        images / "a.json",
        labelme(
            ("cell", "polygon", SQUARE),
            ("_background_", "linestrip", [[0.5, 4.5], [6.5, 4.5]]),
            ("cell", "mask", [[6, 0], [7, 1]], {"mask": png([[1, 0], [1, 1]])}),
            ("unknown", "point", [[5.5, 2.5]]),
        ),
    )
    write(images / "b.json", labelme(("wall", "circle", [[3, 3], [3, 1]]), image="b.png"))
    report = take(tmp_path, stroke=1)
    assert read(tmp_path) == [
        "......1.",
        ".111..11",
        ".111....",
        "........",
        "0000000.",
        "........",
    ]
    assert read(tmp_path, "b")[2:4] == [".2222...", ".2222..."]
    assert read_class_names(tmp_path / "out") == ("background", "cell", "wall")
    assert (tmp_path / "out/train/images/b.png").read_bytes() == (images / "b.png").read_bytes()
    assert report["tool"] == "LabelMe"
    assert report["files"] == ["a", "b"]
    assert report["classes"] == {
        "background": {"index": 0, "files": 1, "shapes": 1, "pixels": 7},
        "cell": {"index": 1, "files": 1, "shapes": 2, "pixels": 9},
        "wall": {"index": 2, "files": 1, "shapes": 1, "pixels": 12},
    }


def test_labelme_that_holds_its_image(tmp_path, images):
    data = base64.b64encode((images / "a.png").read_bytes()).decode()
    content = labelme(("cell", "polygon", SQUARE), image="..\\far\\c.png", imageData=data)
    write(images / "c.json", content)
    take(tmp_path, images / "c.json")
    assert read(tmp_path, "c")[1] == ".111...."
    assert (read_image(tmp_path / "out/train/images/c.png").array == 50).all()


def coco(annotations, **more):
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": H, "width": W},
            {"id": 9, "file_name": "b.png", "height": H, "width": W},
        ],
        "categories": [{"id": 4, "name": "wall"}, {"id": 2, "name": "cell"}],
        "annotations": [
            {"id": index, "image_id": 7, "iscrowd": 0, **annotation}
            for index, annotation in enumerate(annotations)
        ],
        **more,
    }


def test_coco(tmp_path, images):
    square = [float(part) for point in SQUARE for part in point]
    other = [5, 0, 7, 0, 7, 2, 5, 2]
    mask = np.zeros((H, W), np.uint8, order="F")
    mask[4:, :3] = 1
    packed = pycocotools.encode(mask)
    runs = [0, 1, 47]
    write(
        images / "instances.json",
        coco(
            [
                {"category_id": 2, "segmentation": [square, other]},
                {
                    "category_id": 4,
                    "segmentation": {"size": [H, W], "counts": packed["counts"].decode()},
                },
                {
                    "category_id": 2,
                    "image_id": 9,
                    "segmentation": {"size": [H, W], "counts": runs},
                },
            ]
        ),
    )
    take(tmp_path, to="masks")
    assert read(tmp_path, to="masks") == [
        *("00000110", "01110110", "01110000", "00000000", "22200000", "22200000"),
    ]
    assert read(tmp_path, "b", "masks") == ["10000000", *["00000000"] * 5]
    # In the order of the categories' numbers.
    assert read_class_names(tmp_path / "out") == ("background", "cell", "wall")


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><labels>
    <label><name>background</name><color>#000000</color></label>
    <label><name>wall</name><color>#ff0000</color></label>
    <label><name>cell</name><color>#00ff00</color></label>
  </labels></task></meta>
  <image id="0" name="a.png" width="8" height="6">
    <polygon label="cell" source="manual" occluded="0" points="1,1;4,1;4,3;1,3" z_order="0"/>
    <polyline label="background" occluded="0" points="0.50,4.50;6.50,4.50" z_order="0"/>
    <points label="wall" occluded="0" points="2.5,1.5" z_order="1"/>
    <mask label="wall" occluded="0" rle="1, 2, 1"
          left="6" top="0" width="2" height="2" z_order="0"/>
    <tag label="wall"/>
  </image>
  <image id="1" name="sub/b.png" width="8" height="6"/>
</annotations>
"""


def test_cvat(tmp_path, images):
    write(images / "annotations.xml", CVAT)
    report = take(tmp_path, stroke=1)
    # The point lies a level above the polygon; runs of a mask go along its rows.
    assert read(tmp_path) == [
        "." * 7 + "1",
        ".212..1.",
        ".222....",
        "........",
        "0000000.",
        "." * 8,
    ]
    assert read(tmp_path, "b") == ["." * 8] * 6
    assert report["unmarked"] == ["b"]
    assert read_class_names(tmp_path / "out") == ("background", "wall", "cell")


def feature(name, kind, coordinates):
    about = {"objectType": "annotation"}
    if name:
        about["classification"] = {"name": name, "color": [200, 0, 0]}
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "id": "x", "geometry": geometry, "properties": about}


def test_qupath(tmp_path, images):
    outer = [[0, 0], [5, 0], [5, 5], [0, 5], [0, 0]]
    hole = [[1, 1], [4, 1], [4, 4], [1, 4], [1, 1]]
    features = [
        feature("Tumor", "Polygon", [outer, hole]),
        feature("Stroma", "LineString", [[6.5, 0.5], [6.5, 3.5]]),
        feature("Ignore*", "MultiPoint", [[2.5, 2.5]]),
    ]
    write(images / "a.geojson", {"type": "FeatureCollection", "features": features})
    take(tmp_path, stroke=1)
    assert read(tmp_path) == [
        *("22222.1.", "2...2.1.", "2...2.1.", "2...2.1.", "22222...", "........"),
    ]
    write(images / "b.geojson", [feature(None, "Polygon", [outer])])
    with pytest.raises(UserError, match=r"label 'Unclassified' is no class of .*\(Stroma, Tumor\)"):
        take(tmp_path, images / "b.geojson")


# --- what is wrong with a file


def refused(tmp_path, words, *shapes, source=None, **options):
    if shapes:
        write(tmp_path / "labels/a.json", labelme(*shapes))
    with pytest.raises(UserError, match=words):
        take(tmp_path, source, **options)
    assert not (tmp_path / "out").exists()


def test_shapes_that_cannot_be(tmp_path, images):
    name = r"a\.json, image a\.png: "
    far = [[7, 0], [12, 0], [12, 3]]
    refused(tmp_path, name + "polygon 'cell' .* lies outside", ("cell", "polygon", far))
    box = ("cell", "rectangle", [[1, 1], [3, 3]])
    refused(tmp_path, name + "box 'cell' .*no outline; .*--boxes", box)
    two = (("cell", "polygon", SQUARE), ("wall", "linestrip", [[0, 2], [8, 2]]))
    words = name + r"6 pixels are both 'cell' and 'wall' \(line 'wall' .*--overlap last"
    refused(tmp_path, words, *two)
    refused(tmp_path, "a shape of kind 'cuboid' .'cell'. is not read", ("cell", "cuboid", SQUARE))
    write(images / "a.json", labelme(*two))
    take(tmp_path, overlap="last")
    assert read(tmp_path)[1] == "22222222"


def test_images_that_do_not_fit(tmp_path, images):
    write(images / "a.json", labelme(("cell", "polygon", SQUARE), image="c.png"))
    refused(tmp_path, r"a\.json: its image c\.png is not there; looked in .*labels, .*--images")
    write(images / "a.json", labelme(("cell", "polygon", SQUARE), size=(W, H)))
    refused(
        tmp_path, r"drawn on an image of 6 x 8 pixels \(width x height\), but .*a\.png has 8 x 6"
    )
    write(images / "b.json", labelme(("cell", "polygon", SQUARE), image="d.png"))
    refused(tmp_path, r"\(and 1 more images have faults\)")
    refused(tmp_path, "nowhere: no such folder of images", images=str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", {"shapes": []}, "is JSON, but not of LabelMe, COCO or QuPath"),
        ("a.json", "{", "is no JSON"),
        ("a.json", labelme(("cell", "polygon", "x")), "an entry is not as written"),
        ("a.json", {"imagePath": "a.png", "shapes": [{}]}, "an entry has no 'label'"),
        ("a.xml", "<annotations><track/></annotations>", "tracks of a video; export it as 'CVAT"),
        ("a.xml", "<a", "is no XML"),
        ("a.json", coco([{"category_id": 3}]), "category 3, which is not listed; there are 2 cell"),
        ("a.json", coco([{"category_id": 2, "image_id": 1}]), "annotation 0 is of image 1, which"),
        ("a.json", coco([{"category_id": 2, "bbox": [1, 1, 2, 2]}]), "box 'cell' .*no outline"),
        (
            "a.json",
            coco([{"category_id": 2, "segmentation": {"size": [H, W], "counts": [1]}}]),
            "annotation 0: a brush mask of 6 x 8 has runs for 1 pixels",
        ),
        ("a.zip", "x", "no format of labels that can be read; unpack it"),
    ],
)
def test_files_that_are_not_understood(tmp_path, images, name, content, words):
    write(images / name, content)
    refused(tmp_path, words, source=images / name)


def test_an_import_goes_on(tmp_path, images):
    """A second import keeps the numbers of the classes, and does not write over labels unasked."""
    write(images / "a.json", labelme(("cell", "polygon", SQUARE)))
    take(tmp_path)
    with pytest.raises(UserError, match=r"weak/a\.png: is there already; give --replace"):
        take(tmp_path)
    write(images / "a.json", labelme(("cell", "polygon", SQUARE[:3])))
    write(images / "b.json", labelme(("wall", "polygon", SQUARE), image="b.png"))
    with pytest.raises(UserError, match=r"label 'wall' is no class of .*classes\.yaml \(cell\)"):
        take(tmp_path, replace=True)
    table = tmp_path / "table.yaml"
    table.write_text("cell: cell\nwall: background\n")
    take(tmp_path, replace=True, table=str(table))
    assert read(tmp_path)[1:3] == ["..11....", "...1...."]
    assert read(tmp_path, "b")[1] == ".000...."


def test_references_need_no_image(tmp_path, images):
    write(images / "c.json", labelme(("cell", "polygon", SQUARE), image="c.png"))
    take(tmp_path, images / "c.json", to="references")
    assert read(tmp_path, "c", "references")[1] == "01110000"
    assert not (tmp_path / "out/train/images").exists()
    write(images / "c.json", labelme(("unknown", "polygon", SQUARE), image="c.png"))
    with pytest.raises(UserError, match="marks pixels as unlabelled, which references/ has no"):
        take(tmp_path, images / "c.json", to="references", replace=True)
