"""Phantom images: a data set that needs no download, hard in the ways that real ones are.

A textured body holds one object and a few distractors about as bright. Grey value alone does not
tell them apart: the ``disc`` lies in a darker wall (as the left ventricle in its muscle), the
``ring`` runs around a brighter core and under dark vessels (as the optic disc around the cup).
Object area, outline, place, contrast and sharpness vary from image to image. With four classes
there are three objects that touch: a ring (2) around a disc (3) and a crescent (1) beside it, as
the heart's muscle, left and right ventricle in a short-axis view.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from scipy import ndimage

from ..errors import UserError
from .formats import refuse_full, write_labels, write_mask
from .options import WeakOptions
from .weak import weaken

Shape = Literal["disc", "ring"]
Painter = Callable[..., tuple[np.ndarray, np.ndarray]]
"""Paints the objects into a scene; gives the scene and their mask."""
AREA = (0.014, 0.08)
"""Range of the object's area as a fraction of the image, drawn on a logarithmic axis."""
MIN_SIZE = 32
CLASSES = 4
"""Of a phantom with several."""


def generate(
    n: int,
    *,
    shape: Shape = "disc",
    size: int = 256,
    seed: int = 0,
    classes: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Make ``n`` images and their masks.

    Image ``i`` depends on ``seed``, ``shape`` or ``classes``, ``size`` and ``i`` alone, not on
    ``n``. With ``classes`` 4 the objects are a crescent, a ring and a disc, and ``shape`` has no
    say.

    Returns:
        Images uint8 [n, size, size] and masks uint8 [n, size, size], class indices.

    Raises:
        UserError: n below 1, size below 32, a negative seed, an unknown shape, classes that are not
            4, or a ring of several.
    """
    if classes not in (None, CLASSES):
        raise UserError(f"phantom classes: wanted {CLASSES}, or none for one object, got {classes}")
    if classes is not None and shape != "disc":
        raise UserError(f"phantom shape: {shape} is of one object; leave out shape or classes")
    if n < 1:
        raise UserError(f"phantom: wanted at least 1 image, got {n}")
    if size < MIN_SIZE:
        raise UserError(f"phantom size: wanted at least {MIN_SIZE}, got {size}")
    if seed < 0:
        raise UserError(f"phantom seed: wanted 0 or more, got {seed}")
    if shape not in get_args(Shape):
        raise UserError(f"phantom shape: wanted one of {', '.join(get_args(Shape))}, got {shape!r}")
    paint = _PAINTERS[shape] if classes is None else _paint_heart
    pairs = [_one(np.random.default_rng((seed, i)), paint, size) for i in range(n)]
    return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])


def write_phantom(
    out: str | Path,
    n_train: int = 75,
    n_test: int = 25,
    shape: Shape = "disc",
    size: int = 256,
    seed: int = 0,
    classes: int | None = None,
) -> Path:
    """``accl phantom OUT``: PNG files ``OUT/{train,test}/{images,masks}/phantom_000.png``.

    The same arguments write the same bytes. With ``classes`` masks hold class indices, and
    ``OUT/train/weak`` has scribbles of strategy ``skeleton``.

    Returns:
        ``OUT``.

    Raises:
        UserError: ``OUT`` is neither absent nor empty, or as in :func:`generate`.
    """
    if n_train < 1 or n_test < 1:
        raise UserError(f"phantom: wanted at least 1 image a split, got {n_train} and {n_test}")
    refuse_full(out)
    out = Path(out)
    images, masks = generate(n_train + n_test, shape=shape, size=size, seed=seed, classes=classes)
    write = write_mask if classes is None else write_labels
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        folder = out / ("train" if i < n_train else "test")
        name = f"phantom_{i:03d}.png"
        write_labels(folder / "images" / name, image)
        write(folder / "masks" / name, mask)
    made = {"shape": shape, "size": size, "seed": seed, "n_train": n_train, "n_test": n_test}
    if classes is not None:
        made = {"classes": classes, **made}
        del made["shape"]
        scribbles = weaken(masks[:n_train], WeakOptions("skeleton", seed=seed), classes=classes)
        for i, labels in enumerate(scribbles):
            write_labels(out / "train/weak" / f"phantom_{i:03d}.png", labels)
    (out / "phantom.json").write_text(json.dumps(made) + "\n", encoding="utf-8")
    return out


@dataclass(frozen=True)
class _Canvas:
    """Pixel coordinates in units of the image's side, 0 in the middle."""

    y: np.ndarray
    x: np.ndarray

    @classmethod
    def of(cls, size: int) -> _Canvas:
        axis = (np.arange(size) + 0.5) / size - 0.5
        return cls(*np.meshgrid(axis, axis, indexing="ij"))

    def blob(
        self,
        rng: np.random.Generator,
        centre: np.ndarray,
        area: float,
        *,
        elongation: float,
        roughness: float,
    ) -> np.ndarray:
        """Level set of a Fourier-perturbed ellipse: above 0 inside, in units of its radius.

        ``area`` as a fraction of the image; ``elongation`` the ratio of the axes;
        ``roughness`` the standard deviation of the second harmonic, falling with the order.
        """
        angle = rng.uniform(0, np.pi)
        dy, dx = self.y - centre[0], self.x - centre[1]
        along = (np.cos(angle) * dx + np.sin(angle) * dy) / np.sqrt(elongation)
        across = (np.cos(angle) * dy - np.sin(angle) * dx) * np.sqrt(elongation)
        theta = np.arctan2(across, along)
        outline = np.ones_like(theta)
        for order in range(2, 7):
            amplitude, phase = rng.normal(0, roughness * 2 / order), rng.uniform(0, 2 * np.pi)
            outline += amplitude * np.cos(order * theta + phase)
        return np.maximum(outline, 0.3) - np.hypot(along, across) / np.sqrt(area / np.pi)


def _texture(rng: np.random.Generator, size: int, sigmas: tuple[float, ...]) -> np.ndarray:
    """Sum of smoothed noises, mean 0 and standard deviation 1; ``sigmas`` as fractions of the side.

    Smoothed as a product in the frequency domain: the widest is as cheap as the narrowest.
    """
    total = np.zeros((size, size))
    for sigma in sigmas:
        noise = np.fft.rfft2(rng.standard_normal((size, size)))
        layer = np.fft.irfft2(ndimage.fourier_gaussian(noise, sigma * size, n=size), (size, size))
        total += (layer - layer.mean()) / layer.std()
    return total / total.std()


def _inside(rng: np.random.Generator, spread: float, reach: float) -> np.ndarray:
    """A centre about the middle, such that an object of radius ``reach`` stays in the frame."""
    limit = max(0.47 - reach, 0.0)
    return np.clip(rng.normal(0, spread, 2), -limit, limit)


def _one(rng: np.random.Generator, paint: Painter, size: int) -> tuple[np.ndarray, np.ndarray]:
    canvas = _Canvas.of(size)
    area = float(np.exp(rng.uniform(*np.log(AREA))))
    tissue = rng.uniform(0.30, 0.40)
    bright = tissue + rng.uniform(0.22, 0.34)

    body = canvas.blob(
        rng, rng.normal(0, 0.02, 2), rng.uniform(0.55, 0.8), elongation=1.15, roughness=0.03
    )
    scene = np.where(body > 0, tissue, 0.08)
    scene = scene + np.where(body > 0, 0.03, 0.01) * _texture(rng, size, (1 / 100, 1 / 32, 1 / 10))

    scene, mask = paint(rng, canvas, scene, area, tissue, bright)

    scene = ndimage.gaussian_filter(scene, rng.uniform(0.003, 0.009) * size)
    scene *= np.exp(0.12 * _texture(rng, size, (1 / 4,)))
    grain = ndimage.gaussian_filter(rng.standard_normal(scene.shape), 0.7)
    scene *= 1 + rng.uniform(0.04, 0.10) * grain / grain.std()
    scene += rng.normal(0, 0.02, scene.shape)
    image = np.rint(np.clip(scene, 0, 1) * 255).astype(np.uint8)
    return image, mask.astype(np.uint8)


def _paint_disc(
    rng: np.random.Generator,
    canvas: _Canvas,
    scene: np.ndarray,
    area: float,
    tissue: float,
    bright: float,
) -> tuple[np.ndarray, np.ndarray]:
    """A bright cavity in a darker wall, with bright neighbours outside and dark spots inside."""
    radius = np.sqrt(area / np.pi)
    wall = rng.uniform(0.3, 0.6)
    centre = _inside(rng, 0.09, radius * (1.35 + wall))
    scene = _distract(rng, canvas, scene, centre, radius * (1 + wall), area, tissue, bright)
    level = canvas.blob(rng, centre, area, elongation=rng.uniform(1, 1.35), roughness=0.05)
    scene = np.where(level > -wall, tissue - rng.uniform(0.10, 0.18), scene)
    mask = level > 0
    scene = np.where(mask, bright + 0.04 * _texture(rng, len(scene), (1 / 50,)), scene)
    for _ in range(rng.integers(0, 4)):  # dark spots inside belong to the object
        turn, out = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.85) * radius
        spot = canvas.blob(
            rng,
            centre + out * np.array([np.sin(turn), np.cos(turn)]),
            area * rng.uniform(0.02, 0.06),
            elongation=1.3,
            roughness=0.05,
        )
        scene = np.where(mask & (spot > 0), tissue - 0.02, scene)
    return scene, mask


def _paint_ring(
    rng: np.random.Generator,
    canvas: _Canvas,
    scene: np.ndarray,
    area: float,
    tissue: float,
    bright: float,
) -> tuple[np.ndarray, np.ndarray]:
    """A ring about a brighter core, crossed by dark vessels, with neighbours of its brightness."""
    hole = rng.uniform(0.2, 0.5)  # area of the core as a fraction of the outer one
    outer = area / (1 - hole)
    radius = np.sqrt(outer / np.pi)
    centre = _inside(rng, 0.07, radius * 1.35)
    scene = _distract(rng, canvas, scene, centre, radius, area, tissue, bright)
    outside = canvas.blob(rng, centre, outer, elongation=rng.uniform(1, 1.2), roughness=0.03)
    drift = rng.normal(0, 0.06, 2) * radius
    inside = canvas.blob(
        rng, centre + drift, outer * hole, elongation=rng.uniform(1, 1.2), roughness=0.03
    )
    core = (inside > 0) & (outside > 0.12)
    mask = (outside > 0) & ~core
    fine = _texture(rng, len(scene), (1 / 50,))
    scene = np.where(mask, bright + 0.04 * fine, scene)
    scene = np.where(core, bright + rng.uniform(0.10, 0.22), scene)
    for _ in range(rng.integers(3, 7)):
        turn, bend = rng.uniform(0, 2 * np.pi), rng.normal(0, 1.5)
        dy, dx = canvas.y - centre[0], canvas.x - centre[1]
        along = np.cos(turn) * dx + np.sin(turn) * dy
        across = np.cos(turn) * dy - np.sin(turn) * dx - bend * along**2
        vessel = (np.abs(across) < rng.uniform(0.004, 0.010)) & (along > 0)
        scene = np.where(vessel, 0.6 * scene, scene)
    return scene, mask


def _paint_heart(
    rng: np.random.Generator,
    canvas: _Canvas,
    scene: np.ndarray,
    area: float,
    tissue: float,
    bright: float,
) -> tuple[np.ndarray, np.ndarray]:
    """A bright disc in a dark ring, and a bright crescent that leans on the ring."""
    area = 0.45 * area
    radius = np.sqrt(area / np.pi)
    wall, width = rng.uniform(0.4, 0.7), rng.uniform(1.15, 1.3)
    outer = radius * (1 + wall)
    centre = _inside(rng, 0.07, 2.1 * outer)
    scene = _distract(rng, canvas, scene, centre, 2 * outer, area, tissue, bright)
    level = canvas.blob(rng, centre, area, elongation=rng.uniform(1, 1.25), roughness=0.04)
    turn = rng.uniform(0, 2 * np.pi)
    beside = centre + 0.6 * outer * np.array([np.sin(turn), np.cos(turn)])
    share = np.pi * (width * outer) ** 2
    crescent = canvas.blob(rng, beside, share, elongation=rng.uniform(1, 1.15), roughness=0.04)
    mask = np.zeros(scene.shape, np.uint8)
    mask[crescent > 0] = 1
    mask[level > -wall] = 2
    mask[level > 0] = 3
    fine = 0.04 * _texture(rng, len(scene), (1 / 50,))
    greys = (bright - rng.uniform(0.0, 0.06), tissue - rng.uniform(0.08, 0.15), bright)
    for index, grey in enumerate(greys, 1):
        scene = np.where(mask == index, grey + fine, scene)
    return scene, mask


_PAINTERS: dict[str, Painter] = {"disc": _paint_disc, "ring": _paint_ring}


def _distract(
    rng: np.random.Generator,
    canvas: _Canvas,
    scene: np.ndarray,
    centre: np.ndarray,
    reach: float,
    area: float,
    tissue: float,
    bright: float,
) -> np.ndarray:
    """Paints bright bodies about a place: the first leans on it, the others lie further off."""
    for i in range(rng.integers(1, 5)):
        share = area * rng.uniform(0.3, 1.2) if i == 0 else rng.uniform(0.003, 0.03)
        radius = np.sqrt(share / np.pi)
        gap = reach + radius * (0.8 if i == 0 else rng.uniform(1.5, 6.0))
        turn = rng.uniform(0, 2 * np.pi)
        place = np.clip(centre + gap * np.array([np.sin(turn), np.cos(turn)]), -0.45, 0.45)
        level = canvas.blob(rng, place, share, elongation=rng.uniform(1.4, 3.0), roughness=0.10)
        value = tissue + rng.uniform(0.4, 1.0) * (bright - tissue)
        scene = np.where(level > 0, value + 0.04 * _texture(rng, len(scene), (1 / 50,)), scene)
    return scene
