"""The window of ``accl mark``: napari's own layers, tools and undo, with a row of buttons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgba

from ..errors import UserError
from ..report.overlays import BACKGROUND, class_colour
from ..versions import need
from .folder import MarkFolder, three_sizes
from .jobs import Training, predict_folder

KEYS = {
    "N": "next image",
    "Shift-N": "image before",
    "B": "brush",
    "O": "object (again: the next class)",
    "G": "background",
    "U": "unknown: takes marks away",
}
LATER = 300
"""Milliseconds after which an undo or a fill is saved; a stroke is saved when it ends."""


class Desk:
    """A viewer on the training images of a data set.

    Args:
        folder: the images and what is drawn on them.
        runs: trainings go to this folder.
        options: words for ``accl train``.
        show: whether the window is shown.
    """

    def __init__(self, folder: MarkFolder, runs: Path, options: list[str], show: bool = True):
        import napari
        from qtpy.QtCore import QTimer

        self.folder = folder
        self.training = Training(folder, runs, options)
        self.viewer = napari.Viewer(title=f"accl mark {folder.root}", show=show)
        self.predictions: dict[str, np.ndarray] = {}
        self.doubts: dict[str, float] = {}
        self.name = folder.names[0]
        self._saved: dict[str, np.ndarray] = {}
        self._timer, self._clock = QTimer(), QTimer()
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.save)
        self._clock.timeout.connect(self._look)
        self._bind_keys()
        self._add_buttons()
        self.show(self.name)

    # --- images and layers

    def show(self, name: str) -> None:
        """Show an image with its marks, its painted mask and its prediction."""
        self.save()
        self.name = name
        image = self.folder.file(name).array
        self._saved = {"marks": self.folder.marks(name), "mask": self.folder.mask(name)}
        self.viewer.layers.clear()
        self.viewer.add_image(_first(image), name=name)
        predicted = self.predictions.get(name)
        if predicted is not None:
            self._labels("prediction", predicted, 1).opacity = 0.3
        mask = self._labels("mask", self._saved["mask"], 1)
        mask.opacity = 0.4
        marks = self._labels("marks", self._saved["marks"], 0)
        for layer in (mask, marks):
            # napari tells of a single pixel's paint before it is in the layer, of a stroke after.
            layer.events.paint.connect(lambda event: self._soon())
            layer.events.set_data.connect(lambda event: self._timer.start(LATER))
        self.marks_layer, self.mask_layer = marks, mask
        self.viewer.layers.selection.active = marks
        self.use(2)
        place = self.folder.names.index(name) + 1
        self.say(f"{place} of {len(self.folder.names)}: {name}")

    def _labels(self, name: str, array: np.ndarray, first: int) -> Any:
        """A layer of labels; ``first`` is the value of the first class less one."""
        from napari.utils.colormaps import DirectLabelColormap

        count = len(self.folder.class_names)
        colours = {None: "transparent", 0: "transparent"}
        if not first:
            colours[1] = to_rgba(BACKGROUND)
        colours |= {k + 1 - first: to_rgba(class_colour(k)) for k in range(1, count)}
        colormap = DirectLabelColormap(color_dict=colours)
        return self.viewer.add_labels(_first(array).copy(), name=name, colormap=colormap)

    def save(self) -> None:
        """Write what was drawn since the last time."""
        if not self._saved:
            return
        for kind, layer, write in (
            ("marks", self.marks_layer, self.folder.save_marks),
            ("mask", self.mask_layer, self.folder.save_mask),
        ):
            drawn = _last(np.asarray(layer.data))
            if not np.array_equal(drawn, self._saved[kind]):
                write(self.name, drawn)
                self._saved[kind] = drawn.copy()

    def _soon(self) -> None:
        self.save()
        self._timer.start(0)

    def step(self, by: int) -> None:
        """Show the image that lies ``by`` places on."""
        names = self.folder.names
        self.show(names[(names.index(self.name) + by) % len(names)])

    # --- drawing

    def use(self, value: int) -> None:
        """Draw marks with this value of the layer: 0 unknown, 1 background, 2 the first class."""
        layer = self.viewer.layers.selection.active
        layer = layer if layer in (self.marks_layer, self.mask_layer) else self.marks_layer
        self.viewer.layers.selection.active = layer
        less = 0 if layer is self.marks_layer else 1
        layer.selected_label = max(value - less, 0)
        layer.mode = "paint"

    def use_object(self) -> None:
        """Draw the object; with several classes the next one each time."""
        layer = self.viewer.layers.selection.active
        less = 1 if layer is self.mask_layer else 0
        highest = len(self.folder.class_names)
        now = layer.selected_label + less if layer in (self.marks_layer, self.mask_layer) else 1
        self.use(now + 1 if 2 <= now < highest else 2)

    def paint_whole(self) -> None:
        """Paint this image's objects completely, from the prediction where there is one."""
        if not self.mask_layer.data.any() and self.name in self.predictions:
            self.mask_layer.data = _first(self.predictions[self.name]).copy()
        self.viewer.layers.selection.active = self.mask_layer
        self.use(2)
        self.save()
        sizes = {name: int(np.count_nonzero(p)) for name, p in self.predictions.items()}
        best = three_sizes(sizes)
        done = len(self.folder.painted())
        hint = f"; a small, a middling and a large object: {', '.join(best)}" if best else ""
        self.say(f"painting the whole object (images painted so far: {done}){hint}")

    # --- training

    def train(self) -> None:
        """Start a training on what is marked."""
        self.save()
        self._try(self.training.start)
        if self.training.running:
            self.say("training")
            self._clock.start(1000)

    def stop(self) -> None:
        """Stop the training; the next one goes on from there."""
        self.training.stop()
        self._look()

    def predict(self) -> None:
        """Predict all images with the newest network."""
        runs = self.training.finished()
        if not runs:
            self.say("no training has a network yet")
            return
        self.predictions, self.doubts = predict_folder(runs[-1], self.folder)
        self.show(self.name)
        self.say(f"predictions of {runs[-1].name}")

    def doubtful(self) -> None:
        """Show the image whose prediction is least sure, of those that nobody has marked."""
        if not self.doubts:
            self.predict()
        if not self.doubts:
            return
        self.save()
        marked = set(self.folder.marked())
        open_ = {n: d for n, d in self.doubts.items() if n not in marked} or self.doubts
        name = max(open_, key=open_.get)
        self.show(name)
        self.say(f"{name} is least sure: {open_[name]:.3f} bits a pixel")

    def _look(self) -> None:
        if self.training.running:
            self.say(self.training.last_line())
            return
        self._clock.stop()
        self.say(f"training ended: {self.training.last_line()}")

    # --- the window

    def _try(self, action: Any) -> None:
        try:
            action()
        except UserError as error:
            self.say(str(error))

    def say(self, text: str) -> None:
        """Show a line below the buttons."""
        self.line.setText(text)

    def _bind_keys(self) -> None:
        actions = (
            lambda viewer: self.step(1),
            lambda viewer: self.step(-1),
            lambda viewer: self.use(max(self.viewer.layers.selection.active.selected_label, 1)),
            lambda viewer: self.use_object(),
            lambda viewer: self.use(1),
            lambda viewer: self.use(0),
        )
        for key, action in zip(KEYS, actions, strict=True):
            self.viewer.bind_key(key, action, overwrite=True)

    def _add_buttons(self) -> None:
        from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

        widget = QWidget()
        column = QVBoxLayout(widget)
        self.buttons = {}
        for text, action in (
            ("paint this one whole", self.paint_whole),
            ("train", self.train),
            ("stop", self.stop),
            ("predict", self.predict),
            ("which image next", self.doubtful),
        ):
            button = QPushButton(text)
            button.clicked.connect(lambda checked=False, action=action: self._try(action))
            column.addWidget(button)
            self.buttons[text] = button
        keys = "\n".join(f"{key}: {what}" for key, what in KEYS.items())
        self.line = QLabel("")
        self.line.setWordWrap(True)
        for label in (QLabel(keys), self.line):
            column.addWidget(label)
        self.viewer.window.add_dock_widget(widget, name="accl", area="right")

    def close(self) -> None:
        """Save, stop what runs, and close the window."""
        self.save()
        self._timer.stop()
        self._clock.stop()
        self.training.stop()
        self.viewer.close()


def _first(array: np.ndarray) -> np.ndarray:
    """The slices of a volume on the first axis, as napari shows them."""
    return array if array.ndim == 2 else np.moveaxis(array, -1, 0)


def _last(array: np.ndarray) -> np.ndarray:
    return array if array.ndim == 2 else np.moveaxis(array, 0, -1)


def open_window(
    data: str | Path, runs: str | Path | None, classes: int | None, options: list[str]
) -> None:
    """``accl mark``: open the window and return when it is closed.

    Raises:
        UserError: napari is not installed, or no images are there.
    """
    need("napari", "accl mark", "mark")
    folder = MarkFolder(data, classes)
    import napari

    desk = Desk(folder, Path(runs) if runs else folder.root / "runs", options)
    napari.run()
    desk.training.stop()
