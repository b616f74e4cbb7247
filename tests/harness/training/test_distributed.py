"""Two processes on gloo end like one with the same global batch."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accl_harness.config_file import save_config
from accl_harness.data.options import ImageMoves
from accl_harness.errors import UserError
from accl_harness.experiments.single import run_training
from accl_harness.run import Run
from accl_harness.terms.gated_crf import CRFOptions
from accl_harness.training.runtime import launch
from small_runs import classes_folder, phantom_folder, rows_without_seconds, small_config

# Float64, because Adam turns the last bits of a float32 gradient near 0 into whole steps.
OPTIONS = {
    "method": "unpaired_accl",
    "alpha": 0.05,
    "size_weight": 0.01,
    "norm": "instance",
    "dropout": 0.0,
    "precision": "64",
    "batch_size": 2,
    "epochs": 2,
}


BEYOND = {
    "crf": CRFOptions(weight=0.5),
    "size_prior": 0.5,
    "size_balance": 2.0,
    "consistency": 0.5,
    "class_balance": True,
    "soften": 1.0,
    "image_moves": ImageMoves(shift=0.25, scale=1.2, grey=0.2),
}


def two_processes(*program: str) -> str:
    """Run a program in two processes on this machine; what they print."""
    command = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    done = subprocess.run(
        (*command, "--standalone", *program),
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "folder"),
    [({}, phantom_folder), (BEYOND, phantom_folder), ({**BEYOND, "classes": 4}, classes_folder)],
    ids=["paper", "beyond", "classes"],
)
def test_two_processes_equal_one_with_the_same_global_batch(tmp_path, more, folder):
    config = small_config(data=str(folder(tmp_path)), limit=4, **OPTIONS, **more)
    alone = run_training(config.replace(out=str(tmp_path / "alone")), quiet=True)
    together = tmp_path / "together"
    save_config(config.replace(out=str(together)), tmp_path / "config.yaml")
    two_processes("-m", "accl_harness", "train", "--config", str(tmp_path / "config.yaml"))
    ours, theirs = Run(together).load_checkpoint(), Run(alone).load_checkpoint()
    for network in ("generator", "discriminator"):
        for name, weight in theirs[network].items():
            torch.testing.assert_close(
                ours[network][name], weight, rtol=1e-7, atol=1e-9, msg=f"{network} {name}"
            )
    for row, expected in zip(
        rows_without_seconds(together), rows_without_seconds(alone), strict=True
    ):
        for name, value in expected.items():
            assert float(row[name] or 0) == pytest.approx(float(value or 0), rel=1e-7), name


@pytest.mark.slow
def test_processes_leave_their_group_at_exit(tmp_path):
    """Else gloo's threads are there when the interpreter ends, where one may abort the process."""
    program = tmp_path / "program.py"
    program.write_text(
        "import atexit, os, sys\n"
        "from pathlib import Path\n"
        "from torch import distributed\n"
        "from accl_harness.config import TrainConfig\n"
        "from accl_harness.training.runtime import launch\n"
        "found = Path(sys.argv[1], 'in a group ' + os.environ['RANK'])\n"
        "atexit.register(lambda: found.write_text(str(distributed.is_initialized())))\n"
        "launch(TrainConfig(accelerator='cpu', batch_size=2)).barrier()\n"
        "assert distributed.is_initialized()\n"
    )
    two_processes(str(program), str(tmp_path))
    # A file each, because what two processes print may come mixed.
    assert [(tmp_path / f"in a group {rank}").read_text() for rank in (0, 1)] == ["False"] * 2


def test_fewer_images_a_step_than_processes_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UserError, match="2 of them need at least 2, got 1"):
        launch(small_config(batch_size=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "16"}, "precision 16 needs CUDA"),
        ({"cuda_graph": True}, "cuda_graph needs a CUDA device"),
    ],
)
def test_what_needs_cuda_says_so(options, message):
    with pytest.raises(UserError, match=message):
        launch(small_config(**options))


def test_bf16_trains_on_the_cpu(tmp_path):
    data = str(phantom_folder(tmp_path))
    config = small_config(data=data, out=str(tmp_path / "run"), precision="bf16", epochs=1)
    run = run_training(config, quiet=True)
    (row,) = rows_without_seconds(run)
    full = config.replace(out=str(tmp_path / "full"), precision="32")
    (expected,) = rows_without_seconds(run_training(full, quiet=True))
    assert row["loss_g"] != expected["loss_g"]
    assert float(row["loss_g"]) == pytest.approx(float(expected["loss_g"]), rel=0.05)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["32", "bf16"])
@pytest.mark.parametrize("method", ["fs_ce", "unpaired_accl", "accl_crf"])
def test_cuda_graph_trains_like_the_step_it_recorded(tmp_path, method, precision):
    data = str(phantom_folder(tmp_path))
    # Without dropout and noise, so that nothing is drawn within a step.
    config = small_config(data=data, accelerator="cuda", dropout=0.0, d_noise=0.0, method=method)
    config = dataclasses.replace(config, precision=precision, epochs=3)
    rows = []
    for name, graph in (("eager", False), ("graph", True)):
        run = run_training(config.replace(out=str(tmp_path / name), cuda_graph=graph), quiet=True)
        rows.append(rows_without_seconds(run))
    for eager, recorded in zip(*rows, strict=True):
        assert float(recorded["loss_g"]) == pytest.approx(float(eager["loss_g"]), rel=0.02)


def test_paths_are_relative_to_where_the_command_runs(tmp_path, monkeypatch):
    phantom_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    run = run_training(small_config(data="phantoms", out="run", epochs=1), quiet=True)
    assert (Path(tmp_path) / run / "metrics.json").is_file()
