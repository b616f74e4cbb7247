"""The options of each command, as a parser takes them: a function with the command's name each.

``words`` are those of the command line, which may choose defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Literal

from .options import add_config, given, show_first


def phantom(parser: Any, words: Sequence[str]) -> None:
    parser.add_argument(
        "out", type=str, help="The data set is written to this folder, absent or empty."
    )
    parser.add_argument(
        "--n_train", type=int, default=75, help="So many training images are drawn."
    )
    parser.add_argument("--n_test", type=int, default=25, help="So many test images are drawn.")
    parser.add_argument(
        "--shape", type=Literal["disc", "ring"], default="disc", help="The objects have this form."
    )
    parser.add_argument(
        "--classes",
        type=Literal[4] | None,
        default=None,
        help="Several objects that touch: crescent, ring and disc, with scribbles; not with shape.",
    )
    parser.add_argument("--size", type=int, default=256, help="A side has so many pixels.")
    parser.add_argument("--seed", type=int, default=0, help="The same seed gives the same files.")


def _reading_arguments(parser: Any, default: str = "", slices: str | None = "auto") -> None:
    """Which value of a mask is the object, and how volumes are sliced."""
    note = f"; {default}" if default else ""
    parser.add_argument(
        "--mask_threshold",
        type=float | None,
        default=None,
        help=f"Mask values above this one are the object{note}.",
    )
    parser.add_argument(
        "--mask_value",
        type=int | None,
        default=None,
        help=f"Mask values equal to this one are the object: one class of several{note}.",
    )
    _slices_argument(parser, slices)


def _classes_argument(parser: Any) -> None:
    parser.add_argument(
        "--classes",
        type=int | None,
        default=None,
        help="Masks hold this many classes, by their index, 0 the background; default: one object.",
    )


def _slices_argument(parser: Any, default: str | None) -> None:
    parser.add_argument(
        "--slices",
        type=Literal["auto", "first", "last"] | None,
        default=default,
        help="A volume's slices lie along this axis of its file"
        + ("." if default else "; default: the training's."),
    )


def imported(parser: Any, words: Sequence[str]) -> None:
    from .annotations.options import ImportOptions

    parser.add_argument("labels", type=str, help="A label file, or a folder of them, is read.")
    parser.add_argument("out", type=str, help="The data set is in this folder, or will be.")
    parser.add_class_arguments(ImportOptions, None)


def export(parser: Any, words: Sequence[str]) -> None:
    parser.add_argument("dicom", type=str, help="The series are in this folder of DICOM.")
    parser.add_argument("masks", type=str, help="The masks that accl predict wrote are here.")
    parser.add_argument("out", type=str, help="The segmentations go to this folder.")


def mark(parser: Any, words: Sequence[str]) -> None:
    parser.add_argument("data", type=str, help="The data set whose train/images are marked.")
    parser.add_argument(
        "--runs", type=str | None, default=None, help="Trainings go here; default: DATA/runs."
    )
    _classes_argument(parser)
    parser.add_argument(
        "--train",
        type=str,
        default="",
        help="The button of that name gives accl train these options, as one word in quotes.",
    )


def weaken(parser: Any, words: Sequence[str]) -> None:
    from .data.options import WeakOptions

    parser.add_argument("masks", type=str, help="The masks are read from this folder.")
    parser.add_argument("out", type=str, help="The weak labels (0, 1, 255) go to this folder.")
    _reading_arguments(parser)
    _classes_argument(parser)
    parser.add_class_arguments(WeakOptions, None)


def references(parser: Any, words: Sequence[str]) -> None:
    from .data.options import MaskBankOptions

    parser.add_argument(
        "masks", type=str, help="One or a few painted masks are in this folder or file."
    )
    parser.add_argument("out", type=str, help="The made masks go to this folder.")
    parser.add_argument("--n", type=int, default=200, help="So many masks are made.")
    parser.add_argument("--seed", type=int, default=0, help="The same seed gives the same files.")
    _reading_arguments(parser)
    _classes_argument(parser)
    parser.add_class_arguments(MaskBankOptions, None)


def grow(parser: Any, words: Sequence[str]) -> None:
    from .data.options import WeakOptions

    parser.add_argument("marks", type=str, help="Weak labels, named as the images, are read here.")
    parser.add_argument("out", type=str, help="The grown masks go to this folder.")
    parser.add_argument(
        "--images", type=str, required=True, help="The images are read from this folder."
    )
    parser.add_argument(
        "--references",
        type=str | None,
        default=None,
        help="Painted masks of any images, in this folder, tell the objects' size; needed where no "
        "background is marked.",
    )
    parser.add_argument("--size", type=int, default=128, help="The walker sees so large squares.")
    _reading_arguments(parser)
    _classes_argument(parser)
    codes = ("codes", "foreground", "background", "unlabelled")
    making = {field.name for field in fields(WeakOptions) if field.name not in codes}
    parser.add_class_arguments(WeakOptions, None, skip=making)


def train(parser: Any, words: Sequence[str]) -> None:
    add_config(parser, words, "small")
    parser.add_argument("--resume", type=bool, default=False, help="The run in --out goes on.")
    show_first(parser)


def evaluate(parser: Any, words: Sequence[str]) -> None:
    parser.add_argument("run", type=str, help="The run is in this folder.")
    parser.add_argument(
        "--data",
        type=str | None,
        default=None,
        help="These data are scored; default: the training's.",
    )
    parser.add_argument(
        "--split", type=Literal["test", "train"], default="test", help="Its images are scored."
    )
    parser.add_argument(
        "--masks", type=str | None, default=None, help="The mask folder has this name."
    )
    parser.add_argument(
        "--mask_suffix",
        type=str | None,
        default=None,
        help="Names of masks have this behind those of images; default: the training's.",
    )
    _reading_arguments(parser, default="default: the training's on its own data", slices=None)
    for name, what in (("patients", "patient"), ("volumes", "volume that the file is a slice of")):
        parser.add_argument(
            f"--{name}",
            type=str | None,
            default=None,
            help=f"The first group of this regular expression is the {what}, in a file's name; "
            "default: the training's if it finds something in all names.",
        )
    parser.add_argument(
        "--out", type=str | None, default=None, help="Scores go here; default: into the run."
    )


def predict(parser: Any, words: Sequence[str]) -> None:
    parser.add_argument("run", type=str, help="The run is in this folder.")
    parser.add_argument(
        "--images", type=str, required=True, help="The images are read from this folder."
    )
    parser.add_argument("--out", type=str, required=True, help="The masks go to this folder.")
    parser.add_argument(
        "--pictures",
        type=str | None,
        default=None,
        help="Pictures of each image and its mask in colours go to this folder.",
    )
    _slices_argument(parser, None)


def compare(parser: Any, words: Sequence[str]) -> None:
    preset = "small" if given(words, "data") else "demo"
    add_config(parser, words, preset, skip={"method", "seed"})
    parser.add_argument(
        "--methods", type=str, nargs="+", help="These methods are trained; default: all but walker."
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        help="Each is trained with these seeds; default: 0 1 2; demo: 0.",
    )
    parser.add_argument(
        "--jobs", type=int | None, default=None, help="So many trainings run at a time."
    )
    parser.add_argument(
        "--paper_row",
        type=Literal["acdc_lv", "cup", "disc", "pupil"] | None,
        default=None,
        help="This row of the paper's Table 1 is shown beside.",
    )
    parser.add_argument(
        "--paper_settings",
        type=bool,
        default=False,
        help="The row's annotation ratio, size bounds and weights of ACCL count, with --paper-row.",
    )
    show_first(parser)


def sweep(parser: Any, words: Sequence[str]) -> None:
    add_config(parser, words, "small", skip={"seed", "alpha"})
    parser.add_argument(
        "--alphas", type=float, nargs="+", help="These weights are tried; default: the paper's."
    )
    parser.add_argument(
        "--search", type=int, default=0, help="Optuna tries so many further weights."
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", help="Each is trained with these seeds; default: 0 1 2."
    )
    parser.add_argument(
        "--jobs", type=int | None, default=None, help="So many trainings run at a time."
    )
    show_first(parser)


def verify(parser: Any, words: Sequence[str]) -> None:
    parser.add_argument(
        "--steps", type=int, default=20, help="The two trainings take so many steps."
    )
    parser.add_argument(
        "--device", type=Literal["cpu", "cuda"], default="cpu", help="Everything is computed there."
    )


def bench(parser: Any, words: Sequence[str]) -> None:
    parser.add_argument("--size", type=int, default=256, help="A side has so many pixels.")
    parser.add_argument("--batch_size", type=int, default=1, help="A batch has so many images.")
    parser.add_argument("--width", type=int, default=16, help="The networks have this width.")
    parser.add_argument(
        "--rounds", type=int, default=15, help="Each contender runs so many rounds."
    )
    parser.add_argument(
        "--device", type=Literal["cpu", "cuda"], default="cpu", help="Everything is computed there."
    )
    parser.add_argument(
        "--classes",
        type=int | None,
        default=None,
        help="So many classes, the background counted; default: one object.",
    )
    parser.add_argument(
        "--out", type=str | None, default=None, help="The tables go to this CSV file too."
    )


def none(parser: Any, words: Sequence[str]) -> None:
    pass
