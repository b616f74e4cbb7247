"""Tables, figures and the report of runs with several classes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from accl_harness.config import TrainConfig
from accl_harness.data.formats import write_labels
from accl_harness.evaluation.evaluate import load_test
from accl_harness.experiments.single import evaluate_run
from accl_harness.report.curves import score_plot
from accl_harness.report.document import settings_of, write_comparison
from accl_harness.report.figures import Case, panel
from accl_harness.report.overlays import (
    CLASS_COLOURS,
    OPACITY,
    class_colour,
    legend_handles,
    overlay,
)
from accl_harness.report.paper import METHOD_LABELS
from accl_harness.report.table import (
    build_table,
    class_sheet,
    main_sheet,
    scored_units,
    terminal_sheet,
)
from accl_harness.training import TrainedRun
from matplotlib.colors import to_rgb
from PIL import Image
from torch import nn

# --- colours


def test_the_colour_of_a_class_is_its_own_whatever_the_data():
    assert [class_colour(index) for index in (1, 2, 3)] == ["#E69F00", "#56B4E9", "#009E73"]
    image = np.zeros((1, 4))
    truth, prediction = np.array([[0, 1, 2, 3]]), np.array([[3, 1, 0, 2]])
    for classes in (4, 6):
        picture = overlay(image, truth, prediction, classes)
        for column, index in ((0, 3), (1, 1), (3, 2)):
            np.testing.assert_allclose(
                picture[0, column], OPACITY * np.array(to_rgb(class_colour(index)))
            )
        np.testing.assert_array_equal(picture[0, 2], 0)


def test_the_legend_says_which_index_is_which():
    named = {handle.get_label(): handle.get_facecolor()[:3] for handle in legend_handles(4)}
    assert list(named) == ["class 1", "class 2", "class 3", "white line: true contour"]
    assert named["class 3"] == pytest.approx(to_rgb(class_colour(3)))
    labels = [handle.get_label() for handle in legend_handles(10)]
    assert labels[:7] == ["class 1, 8", "class 2, 9", *(f"class {i}" for i in range(3, 8))]
    many = [handle.get_label() for handle in legend_handles(255)]
    assert many[0] == "class 1, 8, 15, ..."


# Vienot, Brettel and Mollon 1999 (protan, deutan); Brettel et al. 1997, one plane (tritan):
# linear RGB as such an eye sees it.
SEEN = {
    "protan": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    "deutan": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    "tritan": [[1, 0.14461, -0.14461], [0, 0.85924, 0.14076], [0, 0.85924, 0.14076]],
    "any": np.eye(3),
}


def lab(linear):
    """CIE L*a*b* of linear RGB."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.clip(np.array(to_xyz) @ np.clip(linear, 0, 1), 0, None) / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eye", SEEN)
def test_colour_blind_readers_tell_the_classes_apart(eye):
    """Two colours differ for anybody from about 2.3 on; red and green of one lightness, which such
    an eye takes for the same, would not."""
    rgb = np.array([to_rgb(colour) for colour in CLASS_COLOURS])
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    seen = [lab(np.array(SEEN[eye]) @ colour) for colour in linear]
    distances = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[i + 1 :]]
    assert min(distances) > 10


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def near(picture, colour):
    """How many pixels are within 2 of 255 of a colour."""
    wanted = np.array(to_rgb(colour)) * 255
    return int((np.abs(picture.astype(float) - wanted).max(axis=-1) < 2).sum())


def test_a_panel_has_the_classes_colours_and_no_others(tmp_path):
    truth = np.zeros((24, 24), dtype=np.uint8)
    truth[:8], truth[8:16, :12] = 1, 2
    case = Case("a", np.zeros((24, 24)), truth, {"sccl": np.roll(truth, 3, 1)}, {"sccl": 0.5}, 4)
    picture = pixels(panel([case], {"sccl": "SCCL"}, tmp_path / "p.png"))
    # The legend's patches are of full colour, the third class's too, which no pixel has.
    assert all(near(picture, class_colour(index)) > 20 for index in (1, 2, 3))
    for index, found in ((1, True), (2, True), (3, False)):
        tint = OPACITY * np.array(to_rgb(class_colour(index)))
        assert (near(picture, tint) > 100) == found


def test_the_score_plot_has_a_column_for_each_class(tmp_path):
    units = {"v": {"1": 0.5, "2": 0.7, "3": 0.2}, "w": {"1": 0.8, "2": 0.9, "3": 0.1}}
    options = {"labels": METHOD_LABELS, "of": "volume"}
    picture = pixels(score_plot({"sccl": [units], "fs_ce": [units]}, tmp_path / "s.png", **options))
    assert all(near(picture, class_colour(index)) > 40 for index in (1, 2, 3))


# --- tables


def scores(dsc, hd95, **changes):
    """Content of metrics.json with two foreground classes, scored by volume."""
    per_class = {f"{key}_per_class": {"1": 0.25, "2": 0.75} for key in ("precision", "recall")}
    per_class |= {f"{key}_per_class": {"1": 1.5, "2": 0.5} for key in ("size_ratio", "asd")}
    per_class["size_correlation_per_class"] = {"1": 0.5, "2": None}
    mean = {"size_ratio": 1.0, "asd": 1.0, "precision": 0.5, "recall": 0.5}
    mean |= {"size_correlation": 0.5, "mean_pairwise_dsc": 0.3}
    facts = {"annotation_ratio": 0.01, "seconds": 60.0, "distance_unit": "pixels", "images": 4}
    return {
        **per_class,
        **mean,
        **facts,
        "dsc": sum(dsc) / 2,
        "dsc_of": "volumes",
        "dsc_per_class": {"1": dsc[0], "2": dsc[1]},
        "dsc_2d": 0.9,
        "dsc_2d_per_class": {"1": 0.85, "2": 0.95},
        "dsc_3d": sum(dsc) / 2,
        "dsc_3d_per_class": {"1": dsc[0], "2": dsc[1]},
        "dsc_3d_per_volume_per_class": {
            "v": {"1": dsc[0], "2": dsc[1]},
            "w": {"1": dsc[0], "2": dsc[1]},
        },
        "dsc_per_image": dict.fromkeys("abcd", 0.9),
        "hd95": hd95[0],
        "hd95_per_class": {"1": hd95[0], "2": hd95[1]},
        "images_with_distances": 4,
        "images_with_distances_per_class": {"1": 4, "2": 0 if hd95[1] is None else 2},
        **changes,
    }


RESULTS = {"sccl": {0: scores([0.5, 0.9], [3.0, 4.0]), 1: scores([0.7, 0.9], [5.0, None])}}


def test_table_json_has_each_class_and_its_mean_over_the_seeds():
    entry = build_table(RESULTS)["sccl"]
    assert entry["mean"]["dsc"] == pytest.approx(0.75)
    assert entry["mean"]["dsc_per_class"] == pytest.approx({"1": 0.6, "2": 0.9})
    assert entry["spread"]["dsc_per_class"] == pytest.approx({"1": 0.02**0.5, "2": 0})
    assert entry["mean"]["hd95_per_class"] == {"1": 4.0, "2": 4.0}
    assert entry["mean"]["size_correlation_per_class"] == {"1": 0.5, "2": None}
    assert entry["per_seed"]["1"]["dsc_per_class"] == {"1": 0.7, "2": 0.9}
    # Two volumes, both 0.7 in the first seed's mean over the classes and 0.8 in the second's.
    assert entry["interval"] == pytest.approx([0.75, 0.75])


def test_cells_of_classes_by_hand():
    table = build_table(RESULTS)
    sheet = main_sheet(table, {"sccl": "SCCL"}, {})
    cells = dict(zip(sheet.headings, sheet.rows[0], strict=True))
    assert cells["DSC x100"] == "75.0 ± 7.1"
    assert (cells["Class 1"], cells["Class 2"]) == ("60.0 ± 14.1", "90.0 ± 0.0")
    assert cells["95 % over volumes"] == "75.0 – 75.0"
    assert cells["DSC by image"] == "90.0 ± 0.0"
    assert "DSC by volume" not in cells
    classes = class_sheet(table, {"sccl": "SCCL"})
    assert [row[:3] for row in classes.rows] == [
        ["SCCL", "1", "60.0 ± 14.1"],
        ["SCCL", "2", "90.0 ± 0.0"],
    ]
    second = dict(zip(classes.headings, classes.rows[1], strict=True))
    assert second["HD95 (pixels)"] == "4.0 [2/8]"
    assert second["Rank r of sizes"] == "-"
    assert second["DSC by image"] == "95.0 ± 0.0"
    narrow = terminal_sheet(table, {}, {})
    assert narrow.headings == ["Method", "DSC x100", "Class 1", "Class 2", "Size ratio", "Minutes"]


def test_one_object_has_no_sheet_of_classes():
    plain = {
        key: value for key, value in scores([0.5, 0.9], [3.0, 4.0]).items() if "class" not in key
    }
    del plain["dsc_of"], plain["dsc_2d"]
    table = build_table({"sccl": {0: plain}})
    assert class_sheet(table, {}) is None
    assert not [key for key in table["sccl"]["mean"] if "class" in key or key == "dsc_2d"]
    assert scored_units(plain) == {name: {"1": 0.9} for name in "abcd"}


# --- the report


class Bands(nn.Module):
    """The class whose grey value is nearest has the largest logit."""

    def __init__(self, middle):
        super().__init__()
        self.middle = nn.Parameter(torch.tensor(middle) / 127.5 - 1)

    def forward(self, images):
        return -50 * (images - self.middle.view(1, -1, 1, 1)) ** 2


BOUNDS = {"1": [60.0, 70.0], "2": [None, 150.0]}


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """Two finished runs on four slices of two volumes, of which one leaves out class 2."""
    root, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("out")
    grey = np.array([0, 120, 250], dtype=np.uint8)
    for name in ("v_1", "v_2", "w_1", "w_2"):
        mask = np.zeros((32, 32), dtype=np.uint8)
        mask[4:12, 4:12], mask[16:28, 16:28] = 1, 2
        mask = np.roll(mask, int(name[-1]), 0)
        write_labels(root / "test" / "images" / f"{name}.png", grey[mask])
        write_labels(root / "test" / "masks" / f"{name}.png", mask)
    configs, results = [], {}
    for method, middle in (("partial_ce", [0.0, 120.0, 900.0]), ("fs_ce", [0.0, 120.0, 250.0])):
        config = TrainConfig(
            method=method, size=32, classes=3, volumes="^.", data=str(root), out=str(out / method)
        )
        run = TrainedRun(config, Bands(middle), torch.device("cpu"), 1)
        facts = {"seconds": 1.0, "annotation_ratio": 0.01, "bounds": BOUNDS}
        results[method] = {
            0: evaluate_run(run, load_test(config), out=out / method, training=facts)
        }
        configs.append(config)
    table = build_table(results)
    write_comparison(out, configs, results, table, {}, None, "accl compare")
    return out, table, configs, results


def test_a_comparison_of_classes_is_written_whole(comparison):
    out, table, *_ = comparison
    assert table["fs_ce"]["mean"]["dsc_per_class"] == {"1": 1.0, "2": 1.0}
    # Without a logit of its own class 2 is taken for class 1: 64 of 64 + 144 are right.
    assert table["partial_ce"]["mean"]["dsc_per_class"] == pytest.approx({"1": 128 / 272, "2": 0})
    page, sheet = (out / "report.html").read_text(), (out / "table.md").read_text()
    for text in (page, sheet):
        assert "4 test images of 2 volumes" in text or text is sheet
        assert "Classes" in text
        assert "mean over the foreground classes" in text
        assert "every pixel of its most probable class" in text
        assert "Where a volume has a class neither" in text
    assert "| Partial CE | 1 | 47.1 |" in sheet
    assert "DSC of every test volume by method." in page
    for name in ("panel", "worst", "scores"):
        picture = pixels(Path(out / "figures" / f"{name}.png"))
        assert all(near(picture, class_colour(index)) > 20 for index in (1, 2))


def test_settings_name_the_classes_and_their_bounds(comparison):
    _, _, configs, results = comparison
    settings = dict(settings_of(configs, results, "accl compare"))
    assert settings["classes"] == "3, the background counted"
    assert settings["size bounds"].endswith("class 1 60 to 70 pixels, class 2 at most 150 pixels")


def test_settings_name_what_each_discriminator_sees(comparison):
    _, _, configs, results = comparison
    methods = [configs[0].replace(method=name) for name in ("fs_ce", "paired_accl", "accl_crf")]
    settings = dict(settings_of(methods, results, "accl compare"))
    assert settings["discriminator sees"] == (
        "Paired ACCL image and mask, ACCL + CRF † the mask alone"
    )


def test_settings_name_network_optimiser_and_a_prior_of_each_class(comparison):
    _, _, configs, results = comparison
    options = {"prior": (0.02, 0.1), "optimizer": "sgd", "lr": 0.01, "schedule": "poly"}
    options |= {"network": "monai:BasicUNet", "entropy": 0.1}
    settings = dict(settings_of([configs[0].replace(**options)], results, "accl compare"))
    assert settings["networks"].startswith("monai:BasicUNet, width 16")
    assert settings["networks"].endswith("prior 0.02 0.1")
    assert settings["training"].endswith("SGD 0.01, poly decay")
    assert settings["entropy term"] == "weight 0.1"
