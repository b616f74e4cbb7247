"""The pages of results say what the table of measured runs says."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs" / "make_results.py"


def check(script):
    return subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path):
    """The pages, their script and their runs where a test may change them."""
    for name in (
        "make_results.py",
        "results.md",
        "results_log.md",
        "measurements/runs.csv",
        "measurements/scribbles.csv",
    ):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((ROOT / "docs" / name).read_bytes())
    return tmp_path


def test_the_pages_are_current():
    done = check(SCRIPT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_another_number_in_the_runs_is_noticed(copy):
    runs = copy / "measurements" / "runs.csv"
    rows = runs.read_text().splitlines()
    column = rows[0].split(",").index("dsc")
    wanted = next(
        i for i, row in enumerate(rows) if row.startswith("acdc_lv,fs_ce,0,60,") and ",0.02," in row
    )
    cells = rows[wanted].split(",")
    cells[column] = "0.1234"
    rows[wanted] = ",".join(cells)
    runs.write_text("\n".join(rows) + "\n")
    assert check(copy / "make_results.py").returncode == 1


def test_the_readme_names_the_shares_of_the_page():
    results = runpy.run_path(str(SCRIPT))
    found = results["runs_of_today"](results["read_runs"]())

    def shares(*variant):
        data = ("acdc_lv", "drishti_disc", "hc18_head", "drishti_cup")
        return [results["share_of_full"](found, (name, "accl_crf", *variant)) for name in data]

    named = (
        "three painted masks bring it to {} (left ventricle), {} (ring of the optic disc), "
        "{} (head) and {} (optic cup)".format(*shares("three painted masks")),
        "75 masks to {}, {}, {} and {};".format(*shares()),
        f"of the heart {results['share_of_full_in_scribbles']()} ([docs/results.md]",
    )
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert [text for text in named if text not in readme] == []
