"""The commands of ``accl``: what each takes, calls and prints, with an example that a test runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .options import (
    add_config,
    augmentation_switches,
    config_of,
    config_switches,
    fields_of,
    given,
    show_first,
    weak_switches,
)


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        summary: one line for the help.
        example: a command line that works in an empty folder after the examples above it.
        arguments: adds the options to a parser; may look at the words to choose defaults.
        run: called with the parsed and instantiated options.
        switches: names of the options that may stand without a value.
        goes_on: what a person does after an interruption or a full disk.
    """

    summary: str
    example: str
    arguments: Callable[[Any, Sequence[str]], None]
    run: Callable[[Any], None]
    switches: Callable[[], set[str]] = set
    goes_on: str = ""


def _say(text: str) -> None:
    print(text, flush=True)


def _phantom_arguments(parser: Any, words: Sequence[str]) -> None:
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
    parser.add_argument("--size", type=int, default=256, help="A side has so many pixels.")
    parser.add_argument("--seed", type=int, default=0, help="The same seed gives the same files.")


def _phantom(options: Any) -> None:
    from .data.phantom import write_phantom

    out = write_phantom(
        options.out,
        n_train=options.n_train,
        n_test=options.n_test,
        shape=options.shape,
        size=options.size,
        seed=options.seed,
    )
    _say(f"{options.n_train} training and {options.n_test} test images in {out}")


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


def _slices_argument(parser: Any, default: str | None) -> None:
    parser.add_argument(
        "--slices",
        type=Literal["auto", "first", "last"] | None,
        default=default,
        help="A volume's slices lie along this axis of its file"
        + ("." if default else "; default: the training's."),
    )


def _weaken_arguments(parser: Any, words: Sequence[str]) -> None:
    from .data.options import WeakOptions

    parser.add_argument("masks", type=str, help="The masks are read from this folder.")
    parser.add_argument("out", type=str, help="The weak labels (0, 1, 255) go to this folder.")
    _reading_arguments(parser)
    parser.add_class_arguments(WeakOptions, None)


def _weaken(options: Any) -> None:
    from .data.options import WeakOptions
    from .data.weak import write_weak_labels

    weak = WeakOptions(**fields_of(WeakOptions, options))
    report = write_weak_labels(
        options.masks,
        options.out,
        weak,
        mask_threshold=options.mask_threshold,
        mask_value=options.mask_value,
        slices=options.slices,
    )
    for name, pixels in report["per_image"].items():
        _say(f"{name}: {pixels}")
    _say(f"labelled pixels: {report['pixels']} ({100 * report['ratio']:.3f} %)")


def _references_arguments(parser: Any, words: Sequence[str]) -> None:
    from .data.options import Augmentation

    parser.add_argument(
        "masks", type=str, help="One or a few painted masks are in this folder or file."
    )
    parser.add_argument("out", type=str, help="The made masks go to this folder.")
    parser.add_argument("--n", type=int, default=200, help="So many masks are made.")
    parser.add_argument("--seed", type=int, default=0, help="The same seed gives the same files.")
    _reading_arguments(parser)
    parser.add_class_arguments(Augmentation, None)


def _references(options: Any) -> None:
    from .data.options import Augmentation
    from .data.references import write_references

    report = write_references(
        options.masks,
        options.out,
        n=options.n,
        seed=options.seed,
        augmentation=Augmentation(**fields_of(Augmentation, options)),
        mask_threshold=options.mask_threshold,
        mask_value=options.mask_value,
        slices=options.slices,
    )
    low, median, high = report["pixels"]
    _say(
        f"{report['count']} masks from {report['painted']} in {options.out}; "
        f"pixels {low} to {high}, median {median}"
    )


def _train_arguments(parser: Any, words: Sequence[str]) -> None:
    add_config(parser, words, "small")
    parser.add_argument("--resume", type=bool, default=False, help="The run in --out goes on.")
    show_first(parser)


def _train(options: Any) -> None:
    from .config import refuse_idle_options
    from .experiments.single import run_training
    from .run import Run

    config = config_of(options)
    if not options.resume:  # a run of `accl compare` carries the options of all its methods
        refuse_idle_options(config)
    run = run_training(config, resume=options.resume)
    metrics = Run(run).metrics()
    if metrics is not None and int(os.environ.get("LOCAL_RANK", 0)) == 0:
        ratio = metrics["size_ratio"]
        shown = "undefined" if ratio is None else f"{ratio:.2f}"
        _say(f"DSC x100 {100 * metrics['dsc']:.1f}, size ratio {shown}; run in {run}")


def _evaluate_arguments(parser: Any, words: Sequence[str]) -> None:
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
    parser.add_argument(
        "--out", type=str | None, default=None, help="Scores go here; default: into the run."
    )


def _evaluate(options: Any) -> None:
    from .experiments.single import evaluate

    evaluate(
        options.run,
        options.data,
        split=options.split,
        masks=options.masks,
        mask_suffix=options.mask_suffix,
        mask_threshold=options.mask_threshold,
        mask_value=options.mask_value,
        slices=options.slices,
        out=options.out,
    )


def _predict_arguments(parser: Any, words: Sequence[str]) -> None:
    parser.add_argument("run", type=str, help="The run is in this folder.")
    parser.add_argument(
        "--images", type=str, required=True, help="The images are read from this folder."
    )
    parser.add_argument("--out", type=str, required=True, help="The masks go to this folder.")
    _slices_argument(parser, None)


def _predict(options: Any) -> None:
    from .evaluation.predict import predict

    written = predict(options.run, options.images, options.out, options.slices)
    _say(f"{len(written)} masks in {options.out}")


def _compare_arguments(parser: Any, words: Sequence[str]) -> None:
    preset = "small" if given(words, "data") else "demo"
    add_config(parser, words, preset, skip={"method", "seed"})
    parser.add_argument(
        "--methods", type=str, nargs="+", help="These methods are trained; default: all nine."
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


def _compare(options: Any) -> None:
    from .experiments.compare import compare

    compare(
        config_of(options),
        methods=options.methods,
        seeds=options.seeds,
        jobs=options.jobs,
        paper_row=options.paper_row,
        paper_settings=options.paper_settings,
    )


def _sweep_arguments(parser: Any, words: Sequence[str]) -> None:
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


def _sweep(options: Any) -> None:
    from .experiments.sweep import sweep

    sweep(
        config_of(options),
        alphas=options.alphas,
        search=options.search,
        seeds=options.seeds,
        jobs=options.jobs,
    )


def _verify_arguments(parser: Any, words: Sequence[str]) -> None:
    parser.add_argument(
        "--steps", type=int, default=20, help="The two trainings take so many steps."
    )
    parser.add_argument(
        "--device", type=Literal["cpu", "cuda"], default="cpu", help="Everything is computed there."
    )


def _verify(options: Any) -> None:
    from .verify import verify

    verify(steps=options.steps, device=options.device)


def _bench_arguments(parser: Any, words: Sequence[str]) -> None:
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
        "--out", type=str | None, default=None, help="The tables go to this CSV file too."
    )


def _bench(options: Any) -> None:
    from .bench import bench

    bench(
        size=options.size,
        batch_size=options.batch_size,
        width=options.width,
        rounds=options.rounds,
        device=options.device,
        out=options.out,
    )


def _no_arguments(parser: Any, words: Sequence[str]) -> None:
    pass


def _info(options: Any) -> None:
    from .info import information

    _say(information())


COMMANDS: dict[str, Command] = {
    "phantom": Command(
        "write a phantom data set in the folder layout",
        "accl phantom data --n-train 8 --n-test 4 --shape disc --size 64 --seed 0",
        _phantom_arguments,
        _phantom,
    ),
    "weaken": Command(
        "make weak labels from masks; reports pixels and ratio",
        "accl weaken data/train/masks weak --ratio 0.005 --keep-topology",
        _weaken_arguments,
        _weaken,
        weak_switches,
    ),
    "references": Command(
        "make a bank of reference masks by augmentation of a few painted ones",
        "accl references data/train/masks references --n 20 --seed 0",
        _references_arguments,
        _references,
        augmentation_switches,
    ),
    "train": Command(
        "train one method and score it on the test images",
        "accl train --data data --method unpaired_accl --epochs 2 --out run --resume",
        _train_arguments,
        _train,
        lambda: config_switches() | {"resume"},
        "a training goes on with --resume",
    ),
    "evaluate": Command(
        "score a run on a data set",
        "accl evaluate run --data data",
        _evaluate_arguments,
        _evaluate,
    ),
    "predict": Command(
        "write masks for new images, in the images' format and size",
        "accl predict run --images data/test/images --out masks",
        _predict_arguments,
        _predict,
    ),
    "compare": Command(
        "train all methods: the paper's table, figures and a report; on phantoms without --data",
        "accl compare --data data --methods partial_ce fs_ce --seeds 0 --epochs 2 --out table",
        _compare_arguments,
        _compare,
        lambda: config_switches() | {"paper_settings"},
        "the same command goes on where it stopped",
    ),
    "sweep": Command(
        "train one method over several weights of ACCL: the paper's study of alpha",
        "accl sweep --data data --method unpaired_accl --alphas 5e-3 5e-2 --seeds 0 --epochs 2 "
        "--out sweep",
        _sweep_arguments,
        _sweep,
        config_switches,
        "the same command goes on where it stopped",
    ),
    "verify": Command(
        "compare the fused ops with the reference; exit status 1 over tolerance",
        "accl verify --steps 2",
        _verify_arguments,
        _verify,
    ),
    "bench": Command(
        "print tables of speed and memory, of the ops and of a training step",
        "accl bench --size 64 --width 4 --rounds 3",
        _bench_arguments,
        _bench,
    ),
    "info": Command(
        "print versions, build and devices: what a bug report needs",
        "accl info",
        _no_arguments,
        _info,
    ),
}
"""In the order of use; the examples run one after the other in one folder."""
