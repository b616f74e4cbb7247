"""The names of classes.yaml, from the data set to the tables, the figures and the predictions."""

import json

import pytest
from accl_harness.cli import main
from accl_harness.data.class_names import class_title, names_for, read_class_names
from accl_harness.data.phantom import write_phantom
from accl_harness.errors import UserError
from accl_harness.report.overlays import class_handles
from accl_harness.report.table import build_table, class_sheet, main_sheet

NAMES = ("background", "crescent", "wall", "chamber")
TEXT = "0: background\n1: crescent\n2: wall\n3: chamber\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training of an epoch on data whose classes have names."""
    root = write_phantom(
        tmp_path_factory.mktemp("named") / "data", n_train=3, n_test=2, size=32, classes=4
    )
    (root / "classes.yaml").write_text(TEXT)
    out = root.parent / "run"
    words = f"train --data {root} --out {out} --classes 4 --method partial_ce --epochs 1 --size 32"
    words += " --width 2 --batch-size 2 --backend reference --accelerator cpu --tensorboard false"
    assert main(words.split()) == 0
    return out


def test_a_run_keeps_the_names(run):
    assert read_class_names(run) == NAMES
    assert read_class_names(run / "predictions") == NAMES
    assert json.loads((run / "metrics.json").read_text())["class_names"] == list(NAMES)


def test_what_a_person_reads(run, capsys):
    assert main(["evaluate", str(run)]) == 0
    head = next(line for line in capsys.readouterr().out.splitlines() if "score" in line)
    assert "crescent" in head
    assert "class 1" not in head
    metrics = json.loads((run / "metrics.json").read_text())
    table = build_table({"partial_ce": {0: metrics}})
    labels = {"partial_ce": "partial CE"}
    headings = main_sheet(table, labels, {}).headings
    assert headings[3:6] == ["Class crescent", "Class wall", "Class chamber"]
    assert [row[1] for row in class_sheet(table, labels).rows] == list(NAMES[1:])
    nameless = {key: value for key, value in metrics.items() if key != "class_names"}
    table = build_table({"partial_ce": {0: nameless}})
    assert main_sheet(table, labels, {}).headings[3] == "Class 1"


def test_predictions_take_the_names_along(run, tmp_path):
    images = run.parent / "data/test/images"
    out = tmp_path / "masks"
    assert main(["predict", str(run), "--images", str(images), "--out", str(out)]) == 0
    assert read_class_names(out) == NAMES


def test_legends():
    assert [handle.get_label() for handle in class_handles(range(1, 4), NAMES)] == list(NAMES[1:])
    assert [handle.get_label() for handle in class_handles([1])] == ["class 1"]
    assert class_title("2", NAMES) == "wall"
    assert class_title("2", None) == "class 2"


def test_names_that_do_not_fit(tmp_path):
    path = tmp_path / "classes.yaml"
    path.write_text(TEXT)
    assert names_for(tmp_path, 4) == NAMES
    assert names_for(tmp_path, None) is None  # one object of three: which is not known
    with pytest.raises(UserError, match=r"names 4 classes .*, and --classes is 3; the background"):
        names_for(tmp_path, 3)
    for text in ("- a\n- b", "1: a\n2: b", "0: a", "0: a\n1: a"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"classes\.yaml: wanted"):
            read_class_names(tmp_path)
    path.write_text("0: [")
    with pytest.raises(UserError, match="is no YAML"):
        read_class_names(tmp_path)
