"""Many trainings: side by side in processes, resumable, with progress bars."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..config import changed_options
from ..data.fingerprint import fingerprint
from ..errors import CheckFailed, UserError
from ..run import Run
from . import single

REFRESH_SECONDS = 0.5


def default_jobs(accelerator: str, runs: int) -> int:
    """Trainings at a time: one for each core on a CPU, one on a GPU; never more than ``runs``."""
    on_gpu = accelerator == "cuda" or (accelerator == "auto" and torch.cuda.is_available())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(1 if on_gpu else cores or 1, runs))


def train_all(configs: Sequence, *, jobs: int) -> None:
    """Train every config whose run is not finished; an interrupted one goes on.

    Args:
        configs: ``config.TrainConfig``s with ``out`` set, each its own folder.
        jobs: processes at a time; with 1 the trainings run in this process.

    Raises:
        UserError: from the first run that met bad input; the others are given up.
        CheckFailed: some runs failed otherwise; the rest was finished first. Each run's log has
            its traceback, the message names the first.
    """
    refuse_other_runs(configs)
    todo = [config for config in configs if not Run(config.out).is_finished]
    if not todo:
        return
    for config in todo:
        Path(config.out).parent.mkdir(parents=True, exist_ok=True)
    failures: dict[str, str] = {}
    with _progress(todo, done=len(configs) - len(todo)) as bars:
        outcomes = _in_this_process(todo, bars) if jobs == 1 else _in_processes(todo, jobs, bars)
        for config, error in outcomes:
            bars.finish(config, error)
            if isinstance(error, UserError):
                raise error
            if error is not None:
                failures[config.out] = " ".join(f"{type(error).__name__}: {error}".split())
    if failures:
        out, reason = next(iter(failures.items()))
        raise CheckFailed(
            f"{len(failures)} of {len(todo)} runs failed, the first with {reason}; "
            f"see {log_path(Path(out))}"
        )


def log_path(run: Path) -> Path:
    """Where a run's output goes: beside its folder, which belongs to the training alone."""
    return run.with_name(f"{run.name}.log")


def refuse_other_runs(configs: Sequence) -> None:
    """A folder from an earlier call must hold the same training, else the table would lie.

    Raises:
        UserError: a run's folder holds one of other settings, or on other data.
    """
    digests: dict[tuple[str, str], str] = {}
    for config in configs:
        run = Run(config.out)
        if not run.config_file.is_file():
            continue
        changed = [
            f"{name} {then} there, {now} asked"
            for name, (then, now) in changed_options(run.config(), config).items()
        ]
        if changed:
            raise UserError(
                f"{config.out} holds a run with other settings ({'; '.join(changed)}); "
                "choose another --out"
            )
        data = (config.data, config.masks)
        if data not in digests:
            digests[data] = fingerprint(*data)
        run.refuse_other_data(config.data, digests[data])


def _in_this_process(configs: Sequence, bars: _Bars) -> Iterator[tuple[object, object]]:
    for config in configs:
        bars.start(config)
        try:
            _train(config)
        except Exception as error:
            yield config, error
        else:
            yield config, None


def _in_processes(configs: Sequence, jobs: int, bars: _Bars) -> Iterator[tuple[object, object]]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = str(max(1, (cores or 1) // jobs))
    context = multiprocessing.get_context("spawn")  # a forked child cannot use CUDA
    others = set(multiprocessing.active_children())
    with (
        _environment(OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads),
        ProcessPoolExecutor(jobs, mp_context=context, initializer=_follow_parent) as pool,
    ):
        waiting = list(configs)
        running: dict[Future, object] = {}
        try:
            while waiting or running:
                # One at a time a process: what has not been handed out can still be given up.
                while waiting and len(running) < jobs:
                    config = waiting.pop(0)
                    bars.start(config)
                    running[pool.submit(_train, config)] = config
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    error = future.exception()
                    if isinstance(error, BrokenProcessPool):
                        raise CheckFailed(
                            "a training process was killed (out of memory?); "
                            "the same command goes on where it stopped, try --jobs 1"
                        )
                    yield running.pop(future), error
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


def _follow_parent() -> None:
    """End this process when its parent dies, so that no orphan trains into a resumed folder."""

    def follow() -> None:
        multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _train(config) -> None:
    """One training, from the start or from its last checkpoint; its output goes to the log."""
    with (
        log_path(Path(config.out)).open("a", encoding="utf-8", errors="backslashreplace") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            single.run_training(config, resume=True)
        except UserError:
            raise
        except Exception:
            traceback.print_exc()
            raise


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key)
            else:
                os.environ[key] = value


class _Bars:
    """A bar for each running training, read from its metrics.csv, and one for all."""

    def __init__(self, progress: Progress, configs: Sequence, done: int):
        self.progress = progress
        self.tasks: dict[str, int] = {}
        self.epochs = sum(config.all_epochs for config in configs)
        self.finished_epochs = 0
        title = f"{len(configs)} trainings" + (f" ({done} done before)" if done else "")
        self.total = progress.add_task(title, total=self.epochs, last="")
        self.running: dict[str, object] = {}
        self.lock = threading.Lock()

    def start(self, config) -> None:
        with self.lock:
            name = Path(config.out).name
            task = self.progress.add_task(f"  {name}", total=config.all_epochs, last="")
            self.tasks[config.out] = task
            self.running[config.out] = config

    def finish(self, config, error) -> None:
        metrics = Run(config.out).metrics()
        with self.lock:
            self.running.pop(config.out)
            self.finished_epochs += config.all_epochs
            self.progress.remove_task(self.tasks[config.out])
        name = Path(config.out).name
        if error is not None:
            self.progress.console.print(f"  {name}: failed, {type(error).__name__}", markup=False)
        elif metrics is not None:
            ratio = metrics["size_ratio"]
            size = "" if ratio is None else f", size ratio {ratio:.2f}"
            minutes = (metrics["seconds"] or 0) / 60
            self.progress.console.print(
                f"  {name}: DSC {100 * metrics['dsc']:.1f}{size}, {minutes:.1f} min",
                markup=False,
                highlight=False,
            )
        self.refresh()

    def refresh(self) -> None:
        with self.lock:
            epochs = self.finished_epochs
            for out in self.running:
                rows = Run(out).curves()
                epochs += len(rows)
                dsc = rows[-1].get("dsc", float("nan")) if rows else float("nan")
                last = f"DSC {100 * dsc:.0f}" if dsc == dsc else ""
                self.progress.update(self.tasks[out], completed=len(rows), last=last)
            self.progress.update(self.total, completed=epochs)


@contextlib.contextmanager
def _progress(configs: Sequence, done: int) -> Iterator[_Bars]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[last]}"),
    )
    # Its own handle on the terminal: the trainings' output is sent to their logs meanwhile.
    console = Console(file=sys.stdout)
    with Progress(
        *columns,
        console=console,
        refresh_per_second=2,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as progress:
        bars = _Bars(progress, configs, done)
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(REFRESH_SECONDS):
                bars.refresh()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield bars
        finally:
            stop.set()
            watcher.join()
