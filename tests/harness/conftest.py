"""Fixtures of the harness tests."""

import os
from pathlib import Path

import pytest

pytest.register_assert_rewrite("small_runs")

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real images (ACDC, Drishti-GS1, HC18), which the project does not contain.

    ``ACCL_DATA`` names it, else ``shared/data`` beside the repository; skips where it is absent.
    """
    folder = Path(os.environ.get("ACCL_DATA") or REPOSITORY.parent / "shared" / "data")
    if not (folder / "acdc_lv").is_dir():
        pytest.skip("no real images here; ACCL_DATA names their folder")
    return folder
