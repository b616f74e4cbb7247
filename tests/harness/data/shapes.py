"""Masks that tests paint: a disc and a ring."""

import numpy as np


def disc(side=48, radius=9, centre=(20, 26)):
    y, x = np.ogrid[:side, :side]
    return ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2).astype(np.uint8)


def ring(side=48):
    return disc(side, 12) - disc(side, 8)
