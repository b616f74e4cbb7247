"""The window itself: marks that are drawn by mouse events arrive in the file.

It wants a screen with OpenGL, which Qt's own "offscreen" is not: where there is none,
``xvfb-run -a python -m pytest`` makes one.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("napari")
if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    pytest.skip("no screen: run it by xvfb-run", allow_module_level=True)
from accl_harness.data.formats import read_image
from accl_harness.marking.folder import MarkFolder
from accl_harness.marking.window import KEYS, Desk

SIDE = 40

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from accl_harness.marking.folder import MarkFolder
from accl_harness.marking.window import Desk
from test_window import press, move, release
desk = Desk(MarkFolder(sys.argv[1]), Path(sys.argv[1]) / "runs", [], show=False)
desk.marks_layer.brush_size = 3
desk.use(2)
press(desk, 10, 10); move(desk, 10, 20); release(desk, 10, 20)
press(desk, 30, 10); move(desk, 30, 20)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "train/images").mkdir(parents=True)
    for index, name in enumerate(("a", "b", "c")):
        image = np.full((SIDE, SIDE), 90 + index, np.uint8)
        Image.fromarray(image).save(tmp_path / f"train/images/{name}.png")
    return tmp_path


@pytest.fixture
def desk(root):
    window = Desk(MarkFolder(root), root / "runs", [], show=False)
    yield window
    window.close()


def event(desk, kind, row, column):
    """A mouse event of the canvas at the centre of a pixel of the image."""
    canvas = desk.viewer.window._qt_viewer.canvas
    near, far = (
        np.array(canvas._map_canvas2world(p, canvas.view))[-2:] for p in ((0, 0), (99, 99))
    )
    place = (np.array([row, column]) - near) / (far - near) * 99
    place = place[::-1]
    pos = np.rint(place).astype(int)
    getattr(canvas._scene_canvas.events, f"mouse_{kind}")(
        pos=pos, button=1, buttons=[1], modifiers=()
    )


def press(desk, row, column):
    event(desk, "press", row, column)


def move(desk, row, column):
    event(desk, "move", row, column)


def release(desk, row, column):
    event(desk, "release", row, column)


def stored(root, name="a", kind="weak"):
    return read_image(root / f"train/{kind}/{name}.png", "weak").array


def test_strokes_arrive_in_the_file(desk, root):
    desk.marks_layer.brush_size = 3
    desk.use(2)
    press(desk, 10, 10)
    move(desk, 10, 20)
    release(desk, 10, 20)
    assert (stored(root)[10, 10:21] == 1).all()
    assert np.count_nonzero(stored(root) != 255) < 60
    desk.use(1)
    press(desk, 30, 10)
    release(desk, 30, 10)
    assert stored(root)[30, 10] == 0
    desk.use(0)
    press(desk, 10, 10)
    release(desk, 10, 10)
    assert stored(root)[10, 10] == 255
    desk.marks_layer.undo()
    desk.save()
    assert stored(root)[10, 10] == 1


def test_a_kill_in_a_stroke_loses_that_stroke_alone(root):
    here = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", KILLED, str(root), here], timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert (stored(root)[10, 10:21] == 1).all()
    assert (stored(root)[30] == 255).all()
    assert [path.name for path in (root / "train/weak").iterdir()] == ["a.png"]


def test_keys_and_images(desk, root):
    desk.viewer.layers.selection.active.selected_label = 1
    keymap = {str(key): action for key, action in desk.viewer.keymap.items()}
    assert len(keymap) >= len(KEYS)
    desk.use_object()
    assert desk.marks_layer.selected_label == 2
    desk.marks_layer.paint((5, 5), 2)
    assert desk.name == "a"
    desk.step(1)
    assert desk.name == "b"
    assert not desk.marks_layer.data.any()
    desk.step(-1)
    assert desk.marks_layer.data[5, 5] == 2
    desk.step(-1)
    assert desk.name == "c"


def test_painting_one_whole_starts_from_the_prediction(desk, root):
    predicted = np.zeros((SIDE, SIDE), np.uint8)
    predicted[5:15, 5:15] = 1
    desk.predictions = {"a": predicted, "b": predicted, "c": np.zeros_like(predicted)}
    desk.show("a")
    assert [layer.name for layer in desk.viewer.layers] == ["a", "prediction", "mask", "marks"]
    desk.buttons["paint this one whole"].click()
    assert np.array_equal(stored(root, kind="references") > 0, predicted > 0)
    desk.use(1)
    desk.mask_layer.paint((10, 10), 0)
    desk.save()
    assert stored(root, kind="references")[10, 10] == 0
    assert "a small, a middling and a large object: a, b" in desk.line.text()


def test_which_image_next(desk):
    desk.doubts = {"a": 0.1, "b": 0.2, "c": 0.9}
    desk.buttons["which image next"].click()
    assert desk.name == "c"
    assert "c is least sure: 0.900 bits" in desk.line.text()
    desk.marks_layer.paint((5, 5), 2)
    desk.buttons["which image next"].click()
    assert desk.name == "b"
    desk.buttons["train"].click()


def test_what_cannot_be_is_said_in_the_window(desk):
    desk.buttons["train"].click()
    assert desk.line.text() == "no object is marked yet"
    desk.buttons["predict"].click()
    assert desk.line.text() == "no training has a network yet"
    desk.buttons["stop"].click()
