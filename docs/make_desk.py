"""The pictures of docs/desk.md: the window of ``accl mark`` on generated images, step by step.

It wants the extra ``mark``, a screen with OpenGL (``xvfb-run -a python docs/make_desk.py``) and
some minutes on two cores. The marks are drawn by the program: in the first images the scribbles
that ``accl weaken --strategy skeleton`` would make, then three whole masks. Options on its command
line go to ``accl train``.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from accl_harness.data.formats import read_image
from accl_harness.data.options import WeakOptions
from accl_harness.data.phantom import write_phantom
from accl_harness.data.weak import weak_labels
from accl_harness.marking.folder import MarkFolder, three_sizes
from accl_harness.marking.window import Desk
from PIL import Image
from qtpy.QtWidgets import QApplication

FIGURES = Path(__file__).parent / "figures"
MARKED = 6
OPTIONS = ["--epochs", "25", "--size", "64", "--tensorboard", "false"]


def main() -> None:
    """Write ``figures/desk_*.png``."""
    with tempfile.TemporaryDirectory() as folder:
        data = write_phantom(Path(folder) / "data", n_train=24, n_test=2, size=96, seed=3)
        truth = Path(folder) / "truth"
        shutil.move(data / "train/masks", truth)  # a person has the images alone
        shutil.rmtree(data / "test")
        desk = Desk(MarkFolder(data), data / "runs", [*OPTIONS, *sys.argv[1:]])
        desk.viewer.window.resize(1180, 760)
        for name in desk.folder.names[:MARKED]:
            desk.show(name)
            mark(desk, read_image(truth / f"{name}.png", "mask").array != 0)
        picture(desk, "desk_1_marks")
        train(desk)
        desk.doubtful()
        first = desk.name
        picture(desk, "desk_2_least_sure")
        sizes = {name: int(np.count_nonzero(part)) for name, part in desk.predictions.items()}
        for name in three_sizes(sizes):
            desk.show(name)
            desk.paint_whole()
            desk.mask_layer.data = np.uint8(read_image(truth / f"{name}.png", "mask").array != 0)
            desk.save()
        picture(desk, "desk_3_whole")
        train(desk)
        desk.show(first)
        picture(desk, "desk_4_after")
        shown = Image.open(data / "runs/run_2/figures/progress.png").convert("RGB")
        shown.quantize(128).save(FIGURES / "desk_progress.png", optimize=True)
        desk.close()


def train(desk: Desk) -> None:
    """Press train, wait, and press predict."""
    before = len(desk.training.finished())
    desk.train()
    while desk.training.running:
        QApplication.processEvents()
        time.sleep(0.5)
    if len(desk.training.finished()) == before:
        raise RuntimeError(desk.training.last_line())
    time.sleep(1)
    QApplication.processEvents()  # the window says that it has ended
    desk.predict()


def mark(desk: Desk, mask: np.ndarray) -> None:
    """Draw a line in the object and one around it, brush by brush."""
    labels = weak_labels(mask, WeakOptions("skeleton"), desk.folder.names.index(desk.name))
    desk.marks_layer.brush_size = 2
    for value, kind in ((2, labels == 1), (1, labels == 0)):
        desk.use(value)
        for row, column in np.argwhere(kind):
            desk.marks_layer.paint((int(row), int(column)), value)
    desk.save()


def picture(desk: Desk, name: str) -> None:
    """Write the window, as it is, to a file."""
    for _ in range(20):  # events that draw the layers
        QApplication.processEvents()
        time.sleep(0.05)
    shown = desk.viewer.screenshot(canvas_only=False, flash=False)
    image = Image.fromarray(shown).convert("RGB")
    image.thumbnail((1180, 760))
    image.quantize(128).save(FIGURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
