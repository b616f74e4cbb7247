"""The documentation's site: it builds without a warning and holds every function."""

import subprocess
import sys
from pathlib import Path

import pytest

import accl_ext

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def test_site_builds_without_a_warning(tmp_path):
    for package in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(package, reason="needs pip install '.[docs]'")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    result = subprocess.run(
        [*command, "-d", tmp_path / "doctrees", ROOT / "docs", tmp_path / "html"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-6000:]
    functions = (tmp_path / "html" / "api.html").read_text(encoding="utf-8")
    for name in set(accl_ext.__all__) - {"reference", "__version__"}:
        assert f'id="accl_ext.{name}"' in functions, name
    # What accl_ext shares with its reference stands there alone.
    reference = {name for name in accl_ext.reference.__all__ if name[0].islower()}
    for name in reference - {"validate_labels"}:
        assert f'id="accl_ext.reference.{name}"' in functions, name


def test_pictures_are_made(tmp_path):
    """With a training of one epoch; the command without options makes those of the pages."""
    command = [sys.executable, ROOT / "docs/make_pictures.py", "--out", tmp_path]
    options = ["--epochs", "1", "--size", "64", "--count", "4"]
    subprocess.run([*map(str, command), *options], check=True, capture_output=True)
    for name in ("in_and_out.png", "labels.png"):
        made = (tmp_path / name).read_bytes()
        assert made.startswith(b"\x89PNG")
        assert len(made) > 10_000
        assert (ROOT / "docs/figures" / name).stat().st_size < 400_000
