"""The commands of ``accl``: what each calls and prints, with an example that a test runs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from . import arguments
from .options import (
    config_of,
    config_switches,
    fields_of,
    import_switches,
    mask_bank_switches,
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


def _phantom(options: Any) -> None:
    from .data.phantom import write_phantom

    out = write_phantom(
        options.out,
        n_train=options.n_train,
        n_test=options.n_test,
        shape=options.shape,
        size=options.size,
        seed=options.seed,
        classes=options.classes,
    )
    _say(f"{options.n_train} training and {options.n_test} test images in {out}")


def _import(options: Any) -> None:
    from .annotations.importing import import_labels
    from .annotations.options import ImportOptions

    how = ImportOptions(**fields_of(ImportOptions, options))
    report = import_labels(options.labels, options.out, how)
    files = len(report["files"])
    _say(f"{report['tool']}: {files} image{'s' * (files != 1)}, labels in {report['folder']}")
    for name, entry in report["classes"].items():
        share = 100 * entry["pixels"] / report["pixels"]
        _say(
            f"{entry['index']} {name}: {entry['pixels']} pixels ({share:.3f} %) of "
            f"{entry['shapes']} marks in {entry['files']} images"
        )
    unmarked = () if how.to == "images" else (("unmarked", "without a mark"),)
    for key, text in (*unmarked, ("left_out", "left out, without labels")):
        if report[key]:
            more = f" and {len(report[key]) - 5} more" if len(report[key]) > 5 else ""
            _say(f"{text}: {', '.join(report[key][:5])}{more}")
    if how.to == "images":
        return
    if how.to == "weak":
        _say("what is not marked is unlabelled (255); --to masks makes it background")
    else:
        _say("what is not marked is background (0)")


def _export(options: Any) -> None:
    from .annotations.dicom_export import export_segmentations

    for path in export_segmentations(options.dicom, options.masks, options.out):
        _say(f"written to {path}")


def _mark(options: Any) -> None:
    from .marking.window import open_window

    open_window(options.data, options.runs, options.classes, shlex.split(options.train))


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
        classes=options.classes,
    )
    for name, pixels in report["per_image"].items():
        _say(f"{name}: {pixels}")
    for index, pixels in report.get("per_class", {}).items():
        share = 100 * report["ratio"] * pixels / max(report["pixels"], 1)
        _say(f"class {index}: {pixels} ({share:.3f} %)")
    _say(f"labelled pixels: {report['pixels']} ({100 * report['ratio']:.3f} %)")


def _references(options: Any) -> None:
    from .data.options import MaskBankOptions
    from .data.references import write_references

    report = write_references(
        options.masks,
        options.out,
        n=options.n,
        seed=options.seed,
        mask_bank=MaskBankOptions(**fields_of(MaskBankOptions, options)),
        mask_threshold=options.mask_threshold,
        mask_value=options.mask_value,
        slices=options.slices,
        classes=options.classes,
    )
    low, median, high = report["pixels"]
    _say(
        f"{report['count']} masks from {report['painted']} in {options.out}; "
        f"pixels {low} to {high}, median {median}"
    )


def _grow(options: Any) -> None:
    from .data.options import WeakOptions
    from .evaluation.grow import grow

    report = grow(
        options.marks,
        options.out,
        options.images,
        options.references,
        size=options.size,
        weak=WeakOptions(**fields_of(WeakOptions, options)),
        mask_threshold=options.mask_threshold,
        mask_value=options.mask_value,
        slices=options.slices,
        classes=options.classes,
    )
    _say(f"{report['count']} masks in {options.out}")
    if report["unmarked"]:
        _say(f"without a mark: {', '.join(report['unmarked'])}")


def _train(options: Any) -> None:
    from .config import refuse_idle_options
    from .data.class_names import class_title
    from .experiments.single import run_training
    from .run import Run

    config = config_of(options)
    if not options.resume:  # a run of `accl compare` carries the options of all its methods
        refuse_idle_options(config)
    run = run_training(config, resume=options.resume, live=True)
    metrics = Run(run).metrics()
    if metrics is None or int(os.environ.get("LOCAL_RANK", 0)) != 0:
        return
    if "dsc" not in metrics:
        _say(f"trained without test images, so without scores; run in {run}")
    else:
        ratio = metrics["size_ratio"]
        shown = "undefined" if ratio is None else f"{ratio:.2f}"
        of_class = (
            f"{class_title(index, metrics.get('class_names'))} {100 * dsc:.1f}"
            for index, dsc in metrics.get("dsc_per_class", {}).items()
        )
        first = metrics.get("first_stage")
        before = [] if first is None else [f"first stage {100 * first['dsc']:.1f}"]
        dsc = ", ".join([f"DSC x100 {100 * metrics['dsc']:.1f}", *before, *of_class])
        _say(f"{dsc}, size ratio {shown}; run in {run}")


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
        patients=options.patients,
        volumes=options.volumes,
        out=options.out,
    )


def _predict(options: Any) -> None:
    from .evaluation.predict import predict

    draw = None
    if options.pictures is not None:
        from .data.formats import refuse_full
        from .report.single import draw_predictions

        refuse_full(options.pictures)
        draw = partial(draw_predictions, Path(options.pictures))
    written = predict(options.run, options.images, options.out, options.slices, draw)
    _say(f"{len(written)} masks in {options.out}")


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


def _sweep(options: Any) -> None:
    from .experiments.sweep import sweep

    sweep(
        config_of(options),
        alphas=options.alphas,
        search=options.search,
        seeds=options.seeds,
        jobs=options.jobs,
    )


def _verify(options: Any) -> None:
    from .verify import verify

    verify(steps=options.steps, device=options.device)


def _bench(options: Any) -> None:
    from .bench import bench

    bench(
        size=options.size,
        batch_size=options.batch_size,
        width=options.width,
        rounds=options.rounds,
        device=options.device,
        classes=options.classes,
        out=options.out,
    )


def _info(options: Any) -> None:
    from .info import information

    _say(information())


COMMANDS: dict[str, Command] = {
    "phantom": Command(
        "write a phantom data set in the folder layout",
        "accl phantom data --n-train 8 --n-test 4 --shape disc --size 64 --seed 0",
        arguments.phantom,
        _phantom,
    ),
    "import": Command(
        "read files of LabelMe, COCO, CVAT, ITK-SNAP, Slicer, napari, Fiji, QuPath; DICOM",
        "accl import data/train/masks painted --images data/train/images --to masks",
        arguments.imported,
        _import,
        import_switches,
    ),
    "mark": Command(
        "open a data set in napari: mark, train, look, and mark where it is wrong",
        "accl mark data --train '--epochs 40'",
        arguments.mark,
        _mark,
    ),
    "weaken": Command(
        "make weak labels from masks; reports pixels and ratio",
        "accl weaken data/train/masks weak --ratio 0.005 --keep-topology",
        arguments.weaken,
        _weaken,
        weak_switches,
    ),
    "references": Command(
        "make a bank of reference masks by random changes of a few painted ones",
        "accl references data/train/masks references --n 20 --seed 0",
        arguments.references,
        _references,
        mask_bank_switches,
    ),
    "grow": Command(
        "grow masks from weak labels with a random walker, to look at or to train on",
        "accl grow weak grown --images data/train/images --references data/train/masks",
        arguments.grow,
        _grow,
    ),
    "train": Command(
        "train one method and score it on the test images",
        "accl train --data data --method accl_crf --epochs 2 --out run --resume",
        arguments.train,
        _train,
        lambda: config_switches() | {"resume"},
        "a training goes on with --resume",
    ),
    "evaluate": Command(
        "score a run on a data set",
        "accl evaluate run --data data",
        arguments.evaluate,
        _evaluate,
    ),
    "predict": Command(
        "write masks for new images, in the images' format and size",
        "accl predict run --images data/test/images --out masks",
        arguments.predict,
        _predict,
    ),
    "export": Command(
        "write predicted masks as DICOM segmentations of the series that they are of",
        "accl export dicom masks segmentations",
        arguments.export,
        _export,
    ),
    "compare": Command(
        "train all methods: the paper's table, figures and a report; on phantoms without --data",
        "accl compare --data data --methods partial_ce fs_ce --seeds 0 --epochs 2 --out table",
        arguments.compare,
        _compare,
        lambda: config_switches() | {"paper_settings"},
        "the same command goes on where it stopped",
    ),
    "sweep": Command(
        "train one method over several weights of ACCL: the paper's study of alpha",
        "accl sweep --data data --method unpaired_accl --alphas 5e-3 5e-2 --seeds 0 --epochs 2 "
        "--out sweep",
        arguments.sweep,
        _sweep,
        config_switches,
        "the same command goes on where it stopped",
    ),
    "verify": Command(
        "compare the fused ops with the reference; exit status 1 over tolerance",
        "accl verify --steps 2",
        arguments.verify,
        _verify,
    ),
    "bench": Command(
        "print tables of speed and memory, of the ops and of a training step",
        "accl bench --size 64 --width 4 --rounds 3",
        arguments.bench,
        _bench,
    ),
    "info": Command(
        "print versions, build and devices: what a bug report needs",
        "accl info",
        arguments.none,
        _info,
    ),
}
"""In the order of use; the examples run one after the other in one folder."""
