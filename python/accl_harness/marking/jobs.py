"""Training and prediction for the window: the command ``accl train`` in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ..classes import decide
from ..data.dataset import load_images
from ..errors import UserError
from ..run import Run
from ..training.inference import load_run, predict_probabilities
from .folder import MarkFolder, doubt


class Training:
    """``accl train`` on the folder, run after run; each starts from the weights of the last.

    Args:
        folder: of the marks.
        runs: the runs go here, numbered.
        options: words for ``accl train`` beside data, out and classes.
    """

    def __init__(self, folder: MarkFolder, runs: Path, options: list[str]):
        self.folder, self.runs, self.options = folder, runs, options
        self._process: subprocess.Popen | None = None

    def finished(self) -> list[Path]:
        """The runs with a network, the newest last."""
        return [run for run in self._all() if Run(run).has_checkpoint]

    def _all(self) -> list[Path]:
        found = (path for path in self.runs.glob("run_*") if path.is_dir())
        return sorted(found, key=_number)

    def start(self) -> Path:
        """Start a training; returns its folder.

        Raises:
            UserError: one is running, or no object is marked.
        """
        if self.running:
            raise UserError("a training is running; stop it first")
        if not self.folder.marked():
            raise UserError("no object is marked yet")
        self.folder.complete()
        earlier = self.finished()
        out = self.runs / f"run_{max(map(_number, self._all()), default=0) + 1}"
        words = ["train", "--data", str(self.folder.root), "--out", str(out), *self.options]
        if self.folder.classes is not None:
            words += ["--classes", str(self.folder.classes)]
        if "--method" not in words:
            words += ["--method", self._method()]
        if earlier:
            words += ["--init", str(earlier[-1])]
        out.parent.mkdir(parents=True, exist_ok=True)
        self.log = out.with_suffix(".log")
        with self.log.open("w", encoding="utf-8") as log:
            command = [sys.executable, "-m", "accl_harness", *words]
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        return out

    def _method(self) -> str:
        """The usual method, once there are masks that show whole objects."""
        whole = self.folder.painted() or (self.folder.folder / "masks").is_dir()
        return "accl_crf" if whole else "partial_ce"

    @property
    def running(self) -> bool:
        """Whether a training is under way."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End it; its last checkpoint stays, and the next training starts from it."""
        if self.running:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)

    def last_line(self) -> str:
        """What it said last."""
        if self._process is None:
            return ""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _number(run: Path) -> int:
    """Of a run's folder ``run_3``."""
    return int(run.name.removeprefix("run_"))


def predict_folder(run: Path, folder: MarkFolder) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """The prediction of each training image as a layer, and how unsure it is.

    Returns:
        Name -> uint8 of the image's shape, 0 background, k the class k; and name -> entropy in bits
        a pixel, of a volume the mean over its slices.
    """
    trained = load_run(run)
    images = load_images(folder.folder / "images", size=trained.config.size)
    planes: dict[str, list[np.ndarray]] = {}
    doubts: dict[str, list[float]] = {}
    by_path = {path: name for name, path in folder.paths.items()}
    with torch.no_grad():
        for index, source in enumerate(images.sources):
            name = by_path[source.path]
            maps = predict_probabilities(trained, images.images[index : index + 1])
            full = F.interpolate(maps, size=images.full_shape(index), mode="bilinear")
            planes.setdefault(name, []).append(decide(full)[0].cpu().numpy())
            doubts.setdefault(name, []).append(doubt(maps[0].cpu().numpy()))
    layers = {
        name: parts[0] if folder.file(name).array.ndim == 2 else np.stack(parts, -1)
        for name, parts in planes.items()
    }
    return layers, {name: float(np.mean(parts)) for name, parts in doubts.items()}
