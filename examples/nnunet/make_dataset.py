"""Writes a small data set in nnU-Net's layout: scribbles, and a few cases painted in full.

    python make_dataset.py --cases 10 --painted 3 --size 64

It goes to $nnUNet_raw/Dataset901_Scribbles. The images are phantoms of accl_harness.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
from accl_harness.data.phantom import generate
from PIL import Image
from scipy import ndimage

IGNORE = 2  # nnU-Net wants it to be the highest label


def scribble(mask):
    """A stroke inside the object, a stroke around it, and everything else ignored."""
    depth = ndimage.distance_transform_edt(mask)
    height = ndimage.distance_transform_edt(1 - mask)
    labels = np.full(mask.shape, IGNORE, np.uint8)
    labels[depth > 0.7 * depth.max()] = 1
    labels[(height > 8) & (height <= 9)] = 0
    return labels


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--painted", type=int, default=3)
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()

    root = Path(os.environ["nnUNet_raw"]) / "Dataset901_Scribbles"  # noqa: SIM112
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    images, masks = generate(options.cases + 2, size=options.size)
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        name = f"phantom_{i:03d}"
        training = i < options.cases
        Image.fromarray(image).save(
            root / ("imagesTr" if training else "imagesTs") / f"{name}_0000.png"
        )
        if training:
            labels = mask if i < options.painted else scribble(mask)
            Image.fromarray(labels).save(root / "labelsTr" / f"{name}.png")
    description = {
        "channel_names": {"0": "phantom"},
        "labels": {"background": 0, "object": 1, "ignore": IGNORE},
        "numTraining": options.cases,
        "file_ending": ".png",
    }
    (root / "dataset.json").write_text(json.dumps(description, indent=1))
    print(f"{options.cases} cases, {options.painted} of them painted in full: {root}")


if __name__ == "__main__":
    main()
