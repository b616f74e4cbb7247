"""A folder in nnU-Net's layout trained with `accl`; no file is renamed or copied.

    python examples/nnunet_folder.py DATASET OUT [options of accl train]

DATASET holds dataset.json, imagesTr/CASE_0000.nii.gz and labelsTr/CASE.nii.gz; images may be called
imagesTr/CASE.nii.gz as well, as in the Medical Segmentation Decathlon. OUT/data gets links to them
in the layout of `accl`: a fifth of the cases tests the network, the others train it. Where
dataset.json has nnU-Net's `ignore` label, the labels are scribbles. Cases without an ignored voxel
are painted in full; some of them test the network, the others show it shapes (train/references).

Without arguments it makes a small data set of phantoms and trains it.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
from accl_harness.data.phantom import generate
from accl_harness.data.weak import WeakOptions, weaken


def read_description(dataset: Path) -> tuple[str, int, int | None]:
    """The files' ending, the number of classes and the ignore label of dataset.json."""
    description = json.loads((dataset / "dataset.json").read_text())
    labels = dict(description["labels"])
    if "background" not in labels:  # the Decathlon has index -> name
        labels = {name: int(index) for index, name in labels.items()}
    ignored = labels.pop("ignore", None)
    if any(index not in labels.values() for index in range(len(labels))):
        raise SystemExit(f"{dataset}: wanted labels 0, 1, 2, ... (no regions), got {labels}")
    return description.get("file_ending", ".nii.gz"), len(labels), ignored


def link(dataset: Path, out: Path, test_share: float = 0.2) -> list[str]:
    """Link the data set into the layout of `accl`; returns the options that `accl train` needs.

    Of several channels `accl` sees the first.
    """
    ending, classes, ignored = read_description(dataset)
    labels = {
        path.name.removesuffix(ending): path
        for path in sorted((dataset / "labelsTr").glob(f"*{ending}"))
        if not path.name.startswith(".")
    }
    painted = [case for case, path in labels.items() if _is_painted(path, ignored)]
    if not painted:
        raise SystemExit(f"{dataset}: no case is painted in full, so none can test the network")
    tested = painted[-max(1, round(test_share * len(painted))) :]
    for case, label in labels.items():
        image = dataset / "imagesTr" / f"{case}_0000{ending}"
        image = image if image.exists() else dataset / "imagesTr" / f"{case}{ending}"
        split = out / ("test" if case in tested else "train")
        kinds = {"images": image, "masks" if ignored is None or case in tested else "weak": label}
        if ignored is not None and case in painted and case not in tested:
            kinds["references"] = label
        for kind, source in kinds.items():
            (split / kind).mkdir(parents=True, exist_ok=True)
            (split / kind / f"{case}{ending}").symlink_to(source.resolve())
    options = ["--data", str(out), "--classes", str(classes)]
    return options if ignored is None else [*options, "--ignore-index", str(ignored)]


def _is_painted(path: Path, ignored: int | None) -> bool:
    return ignored is None or not (np.asarray(nibabel.load(path).dataobj) == ignored).any()


def small_dataset(folder: Path, cases: int = 12, size: int = 64) -> Path:
    """Phantoms of two slices a case in nnU-Net's layout; the last two cases are painted in full."""
    images, masks = generate(2 * cases, size=size, classes=4)
    scribbles = weaken(list(masks), WeakOptions("skeleton"), classes=4)
    ignored = 4
    for case in range(cases):
        pair = slice(2 * case, 2 * case + 2)
        drawn = np.stack(scribbles[pair])
        labels = masks[pair] if case >= cases - 2 else np.where(drawn == 255, ignored, drawn)
        names = f"imagesTr/heart_{case}_0000", f"labelsTr/heart_{case}"
        for name, slices in zip(names, (images[pair], labels), strict=True):
            path = folder / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            voxels = np.moveaxis(slices, 0, -1).astype(np.uint8)
            nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.5, 1.5, 8, 1])), path)
    names = {"background": 0, "right": 1, "muscle": 2, "left": 3, "ignore": ignored}
    description = {"channel_names": {"0": "MR"}, "labels": names, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def default_options(data: Path) -> list[str]:
    """The method that suits the data: with masks, or painted cases among scribbles, ACCL."""
    if (data / "train/masks").is_dir():
        return ["--method", "accl_crf"]
    if (data / "train/references").is_dir():
        return ["--method", "accl_crf", "--references.folder", str(data / "train/references")]
    return ["--method", "partial_ce"]


def main(dataset: Path, out: Path, *more: str) -> Path:
    """Link the data set and train it; `more` are further options of `accl train`."""
    options = link(dataset, out / "data")
    if not any(word.startswith("--method") for word in more):
        options += default_options(out / "data")
    words = ["train", *options, "--out", str(out / "run"), *more]
    subprocess.run([sys.executable, "-m", "accl_harness", *words], check=True)
    return out / "run"


if __name__ == "__main__":
    if len(sys.argv) > 2:
        main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
    else:
        with tempfile.TemporaryDirectory() as place:
            made = small_dataset(Path(place) / "Dataset001_Heart")
            main(made, Path(place) / "out", "--epochs", "40", "--size", "64", "--width", "8")
