"""Draws training and test images of a data set anew, to see whether a result holds on others.

    python benchmarks/redraw.py DATA OUT --seed 11 [--masks NAME] [--value V] [--group REGEX]

Images of DATA's ``train`` and ``test`` are one pool. Groups (patients, say) go to one side whole,
and only images whose mask holds an object count. OUT gets links, no copies.
"""

import argparse
import random
import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image


def pairs(data: Path, masks: str, value: int | None) -> list[tuple[Path, Path]]:
    """Images and masks of the same name, of both parts, that show an object."""
    found = []
    for image in sorted(data.glob("*/images/*")):
        mask = image.parents[1] / masks / image.name
        pixels = np.asarray(Image.open(mask))
        if (pixels > 0 if value is None else pixels == value).any():
            found.append((image, mask))
    return found


def drawn(pool: list[tuple[Path, Path]], group: str, counts: dict[str, int], seed: int) -> dict:
    """The pairs of each part: the share of groups that its count is of all, then images of them."""
    groups = defaultdict(list)
    for image, mask in pool:
        found = re.search(group, image.stem)
        if found is None:
            sys.exit(f"--group {group} does not occur in the name {image.name}")
        groups[found[0]].append((image, mask))
    names, order = sorted(groups), random.Random(seed)
    order.shuffle(names)
    parts, start = {}, 0
    for part, count in counts.items():
        stop = start + round(len(names) * count / sum(counts.values()))
        own = [pair for name in names[start:stop] for pair in groups[name]]
        if len(own) < count:
            sys.exit(f"{part}: wanted {count} images, its groups have {len(own)}")
        parts[part], start = order.sample(own, count), stop
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--masks", default="masks", help="the folder of the masks")
    parser.add_argument("--value", type=int, help="of the object in the masks; default: not 0")
    parser.add_argument(
        "--group", default=".*", help="the part of a name that images of a group share"
    )
    parser.add_argument("--train", type=int, default=75, help="images")
    parser.add_argument("--test", type=int, default=25, help="images")
    options = parser.parse_args()
    pool = pairs(options.data, options.masks, options.value)
    counts = {"train": options.train, "test": options.test}
    for part, chosen in drawn(pool, options.group, counts, options.seed).items():
        for folder, files in zip(("images", "masks"), zip(*chosen, strict=True), strict=True):
            target = options.out / part / folder
            target.mkdir(parents=True)
            for file in files:
                (target / file.name).symlink_to(file.resolve())


if __name__ == "__main__":
    main()
