"""Runs that are killed, interrupted, out of disk or damaged: they go on, or say what is wrong."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
import small_runs
import torch
from accl_harness import storage
from accl_harness.data.phantom import write_phantom
from accl_harness.errors import UserError
from accl_harness.experiments.single import run_training
from accl_harness.run import Run
from accl_harness.storage import write_atomically
from accl_harness.training.curves import Curves
from small_runs import Stop, assert_same_end, column, phantom_folder, small_config

METHOD = {"method": "unpaired_accl", "epochs": 6, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(phantom_folder(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    return run_training(small_config(data=data, out=str(out), **METHOD), quiet=True)


@pytest.mark.parametrize("stop_after", [1, 3, 4])
def test_interrupted_run_ends_like_an_uninterrupted_one(data, uninterrupted, tmp_path, stop_after):
    config = small_config(data=data, out=str(tmp_path / "run"), **METHOD)

    def stop(row):
        if row["epoch"] == stop_after:
            raise Stop

    with pytest.raises(Stop):
        run_training(config, quiet=True, on_epoch=stop)
    run = run_training(config, quiet=True, resume=True)
    assert column(run, "epoch") == ["1", "2", "3", "4", "5", "6"]
    assert_same_end(run, uninterrupted)


_TRAIN = """
import sys, json, torch
torch.set_num_threads(int(sys.argv[2]))
from small_runs import small_config
from accl_harness.experiments.single import run_training
run_training(small_config(**json.loads(sys.argv[1])), quiet=True, resume=True)
"""


def test_killed_run_ends_like_an_uninterrupted_one(data, uninterrupted, tmp_path):
    import json

    run = tmp_path / "run"
    options = json.dumps({"data": data, "out": str(run), **METHOD})
    command = [sys.executable, "-c", _TRAIN, options, str(torch.get_num_threads())]
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(small_runs.__file__)}
    with subprocess.Popen(command, env=environment) as process:
        deadline = time.monotonic() + 120
        while len(Run(run).rows()) < 3 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert not (run / "metrics.json").exists(), "it was killed too late to test anything"
    config = small_config(data=data, out=str(run), **METHOD)
    assert_same_end(run_training(config, quiet=True, resume=True), uninterrupted)


def test_resume_starts_where_nothing_is(data, uninterrupted, tmp_path):
    config = small_config(data=data, out=str(tmp_path / "run"), **METHOD)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").write_text("left over\n")
    assert_same_end(run_training(config, quiet=True, resume=True), uninterrupted)


def test_finished_run_is_left_as_it_is(data, uninterrupted):
    before = {p: p.stat().st_mtime_ns for p in uninterrupted.rglob("*")}
    config = small_config(data=data, out=str(uninterrupted), **METHOD)
    assert run_training(config, quiet=True, resume=True) == uninterrupted
    assert {p: p.stat().st_mtime_ns for p in uninterrupted.rglob("*")} == before


def test_run_killed_while_scoring_is_scored_on_resume(data, uninterrupted):
    scores = (uninterrupted / "metrics.json").read_text()
    (uninterrupted / "metrics.json").unlink()
    config = small_config(data=data, out=str(uninterrupted), **METHOD)
    run_training(config, quiet=True, resume=True)
    assert (uninterrupted / "metrics.json").read_text() == scores


def test_folder_that_is_not_empty_needs_resume(data, uninterrupted, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    config = small_config(data=data, out=str(tmp_path))
    with pytest.raises(UserError, match="is not empty: give another --out, or --resume"):
        run_training(config, quiet=True)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_resume_with_other_options_is_refused(data, uninterrupted):
    (uninterrupted / "metrics.json").rename(uninterrupted / "kept.json")
    try:
        config = small_config(data=data, out=str(uninterrupted), **METHOD).replace(lr=1e-3)
        with pytest.raises(UserError, match=r"was trained with lr 0\.0002, not 0\.001"):
            run_training(config, quiet=True, resume=True)
    finally:
        (uninterrupted / "kept.json").rename(uninterrupted / "metrics.json")


def test_resume_on_other_data_is_refused(data, uninterrupted, tmp_path):
    other = write_phantom(tmp_path / "other", n_train=4, n_test=2, size=32, seed=9)
    config = small_config(data=str(other), out=str(uninterrupted), **METHOD)
    with pytest.raises(UserError, match="belongs to other images, masks or weak labels"):
        run_training(config, quiet=True, resume=True)


def test_missing_data_and_out_are_named():
    with pytest.raises(UserError, match="data is missing"):
        run_training(small_config(out="somewhere"))
    with pytest.raises(UserError, match="out is missing"):
        run_training(small_config(data="somewhere"))


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    Run(tmp_path).save_checkpoint({"epoch": 1, "weight": torch.ones(3)})
    monkeypatch.setattr(storage.os, "fsync", full_disk)
    with pytest.raises(UserError, match=r"no space left to write .*last\.pt"):
        Run(tmp_path).save_checkpoint({"epoch": 2, "weight": torch.zeros(3)})
    monkeypatch.undo()
    state = Run(tmp_path).load_checkpoint()
    assert state["epoch"] == 1
    assert state["weight"].tolist() == [1, 1, 1]
    assert [p.name for p in Run(tmp_path).checkpoint.parent.iterdir()] == ["last.pt"]


def test_file_size_limit_of_the_system_is_a_clear_error(tmp_path):
    """A real limit in a process of its own: the write stops half-way, as on a full disk."""
    code = """
import resource, sys, torch
from accl_harness.errors import UserError
from accl_harness.run import Run
run = Run(sys.argv[1])
run.save_checkpoint({"epoch": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    run.save_checkpoint({"epoch": 2, "weight": torch.zeros(100_000)})
except UserError as error:
    assert "no space left" in str(error), error
else:
    raise SystemExit("no error")
assert run.load_checkpoint()["epoch"] == 1
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_full_disk_while_curves_are_written(data, tmp_path, monkeypatch):
    config = small_config(data=data, out=str(tmp_path / "run"), **METHOD)
    monkeypatch.setattr(Curves, "add", full_disk)
    with pytest.raises(UserError, match="no space left"):
        run_training(config, quiet=True)


def test_other_errors_of_the_disk_are_not_hidden(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(storage.os, "fsync", broken)
    with pytest.raises(OSError, match="input/output error"):
        write_atomically(tmp_path / "file", b"content")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_damaged_checkpoint_is_named(tmp_path, content):
    Run(tmp_path).save_checkpoint({"epoch": 1, "weight": torch.ones(1000)})
    path = Run(tmp_path).checkpoint
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(UserError, match=r"last\.pt cannot be read as a checkpoint") as error:
        Run(tmp_path).load_checkpoint()
    assert "weights_only" not in str(error.value)  # torch's own advice


def test_checkpoint_runs_no_code_of_its_own(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    path = Run(tmp_path).checkpoint
    path.parent.mkdir()
    torch.save({"format": 1, "trap": Trap()}, path)
    with pytest.raises(UserError, match="cannot be read"):
        Run(tmp_path).load_checkpoint()
    assert not (tmp_path / "sprung").exists()


def test_checkpoint_of_another_format_is_refused(tmp_path):
    path = Run(tmp_path).checkpoint
    path.parent.mkdir()
    torch.save({"format": 0}, path)
    with pytest.raises(UserError, match="not a checkpoint of this version"):
        Run(tmp_path).load_checkpoint()


def test_half_written_row_is_dropped(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,lr\n1,0.1\n2,0.1\n3,0")
    assert [row["epoch"] for row in Run(tmp_path).rows()] == ["1", "2"]
