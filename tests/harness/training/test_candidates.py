"""benchmarks/candidates.py: each candidate trains, and does something else than no change."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accl_harness.run import Run
from small_runs import phantom_folder, rows_without_seconds

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "candidates.py"
CANDIDATES = ("spectral", "r1", "number", "scales", "average", "wide-prior")


def candidates(*words):
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def train(name, data, out):
    # Size 32 is too small for the 70 x 70 patches at half the resolution.
    options = ("--method", "accl_crf", "--size", 64, "--width", 4, "--epochs", 2)
    done = candidates(name, "--data", data, "--out", out, "--validation", 0.5, *options)
    assert done.returncode == 0, done.stderr[-3000:]
    return Run(out)


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unchanged")
    data = phantom_folder(folder)
    return data, train("none", data, folder / "none")


@pytest.mark.slow
@pytest.mark.parametrize("name", CANDIDATES)
def test_a_candidate_changes_what_is_trained(name, unchanged, tmp_path):
    data, plain = unchanged
    run = train(name, data, tmp_path / name)
    if name == "average":  # changes what is kept at the end, and nothing on the way
        assert rows_without_seconds(run.folder)[0] == rows_without_seconds(plain.folder)[0]
    else:
        column = "size_prior" if name == "wide-prior" else "loss_d"
        assert run.rows()[0][column] != plain.rows()[0][column]
    old, new = (each.load_checkpoint()["generator"] for each in (plain, run))
    assert any(not torch.equal(old[key], new[key]) for key in old)


@pytest.mark.slow
def test_the_script_knows_these_candidates():
    done = candidates("best")
    assert done.returncode == 1
    assert done.stderr.strip() == f"name one of none, {', '.join(CANDIDATES)}, got best"
