"""A term is a file and its place in the list: all else follows."""

import json
import os
import subprocess
import sys

import pytest
from accl_harness.run import Run
from small_runs import phantom_folder

TOY = '''
"""A term of a test: the mean probability of the objects."""

from dataclasses import dataclass

from accl_harness import terms
from accl_harness.terms.term import Term, check_weight


@dataclass(frozen=True)
class ToyOptions:
    """Toy."""

    toy: float | None = None
    """The mean probability of the objects has this weight."""

    def check(self):
        check_weight(self, "toy")


@dataclass(frozen=True)
class Toy(Term):
    name = "toy"
    options = ToyOptions
    weight_option = "toy"
    by_method = {"partial_ce": 0.5}
    curves = (("toy", "toys of all sizes", "linear"),)
    fact = "toy_images"

    weight: float
    images: int

    @classmethod
    def measure(cls, config, material):
        return cls(cls.weight_of(config), len(material.images))

    def told(self, config):
        return self.images

    def value(self, passed):
        return passed.objects.mean()


terms.TERMS = (*terms.TERMS, Toy)

import sys

from accl_harness.cli import main
from accl_harness.report.curves import CURVES

if "--curves" in sys.argv:
    print(CURVES)
else:
    sys.exit(main(sys.argv[1:]))
'''


@pytest.fixture
def accl(tmp_path):
    """Runs the command with the toy in the list, in a process of its own."""
    program = tmp_path / "toy.py"
    program.write_text(TOY)

    def run(*words, fails=False):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = (sys.executable, str(program), *words)
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert (done.returncode != 0) == fails, done.stderr
        return done.stdout + done.stderr

    return run


def test_a_term_is_a_file_and_its_place_in_the_list(tmp_path, accl):
    shown = " ".join(accl("train", "--help").split())
    assert "--toy TOY The mean probability of the objects has this weight." in shown
    assert "('toy', 'toys of all sizes', 'linear')" in accl("--curves")
    assert "toy must be 0 or more, got -1" in accl("train", "--toy=-1", fails=True)

    data = str(phantom_folder(tmp_path))
    options = ("--data", data, "--backend", "reference", "--size", "32", "--width", "2")
    options += ("--epochs", "1", "--accelerator", "cpu", "--prior", "0.3", "--tensorboard", "false")
    accl("train", *options, "--method", "partial_ce", "--out", "by_method")
    accl("train", *options, "--method", "fs_ce", "--out", "without")
    accl("train", *options, "--method", "fs_ce", "--toy", "2", "--out", "given")
    by_method, without, given = (Run(tmp_path / name) for name in ("by_method", "without", "given"))
    assert "\ntoy: null\n" in (by_method.folder / "config.yaml").read_text()
    assert "\ntoy: 2.0\n" in (given.folder / "config.yaml").read_text()
    assert "toy" not in without.rows()[0]
    for run, weight in ((by_method, 0.5), (given, 2.0)):
        row = {name: float(value) for name, value in run.rows()[0].items() if value}
        assert 0 < row["toy"] < 1
        assert row["loss_g"] == pytest.approx(row["partial_ce"] + weight * row["toy"], rel=1e-4)
        found = json.loads((run.folder / "metrics.json").read_text())["measured"]
        assert found["toy_images"] == 5
