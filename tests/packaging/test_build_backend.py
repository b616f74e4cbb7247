"""What setup.py and build_backend/ decide before anything is compiled."""

import subprocess
import sys

import pytest
from build_tools import ROOT, environment

pytest.importorskip("setuptools", minversion="77")
import accl_build


def setup(*arguments, **variables):
    return subprocess.run(
        [sys.executable, "setup.py", *map(str, arguments)],
        cwd=ROOT,
        env=environment(**variables),
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("jobs", ["abc", "0", "-2", "1.5"])
def test_max_jobs_that_is_no_number(tmp_path, jobs):
    result = setup("build_ext", "--build-temp", tmp_path / "temp", MAX_JOBS=jobs)
    assert result.returncode != 0
    assert f"accl_ext: MAX_JOBS must be a whole number above 0, not '{jobs}'" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "temp").exists()


def test_removed_module_does_not_come_back_from_the_last_build(tmp_path):
    removed = tmp_path / "lib" / "accl_ext" / "removed.py"
    removed.parent.mkdir(parents=True)
    removed.touch()
    result = setup("build_py", "--build-lib", tmp_path / "lib")
    assert result.returncode == 0, result.stderr
    assert not removed.exists()
    assert (tmp_path / "lib" / "accl_ext" / "_library.py").is_file()
    assert (tmp_path / "lib" / "accl_harness" / "cli.py").is_file()


def test_wheel_and_source_distribution_hold_the_reports_templates(tmp_path):
    folder = ROOT / "python" / "accl_harness" / "report" / "templates"
    templates = {path.name for path in folder.iterdir()}
    assert {"page.html", "blocks.html", "report.css"} <= templates
    assert setup("build_py", "--build-lib", tmp_path / "lib").returncode == 0
    installed = tmp_path / "lib" / "accl_harness" / "report" / "templates"
    assert {path.name for path in installed.iterdir()} == templates
    assert setup("egg_info", "--egg-base", tmp_path).returncode == 0
    listed = (tmp_path / "accl_ext.egg-info" / "SOURCES.txt").read_text().splitlines()
    assert {str(folder.relative_to(ROOT) / name) for name in templates} <= set(listed)


class TestRequirements:
    def test_torch_that_is_there_is_not_asked_for(self):
        assert not [name for name in accl_build._requirements() if name.startswith("torch")]

    def test_default_torch_where_there_is_none(self, monkeypatch):
        monkeypatch.setattr(accl_build, "find_torch", lambda: None)
        assert f"torch=={accl_build.DEFAULT_TORCH}" in accl_build._requirements()
        assert accl_build.torch_requirement() == "torch==2.13.*"

    def test_uv_hides_the_torch_that_is_there(self, monkeypatch):
        monkeypatch.setattr(accl_build, "find_torch", lambda: None)
        monkeypatch.setattr(sys, "prefix", "/home/user/.cache/uv/builds-v0/.tmpAbCdEf")
        monkeypatch.delenv("UV", raising=False)
        assert f"torch=={accl_build.DEFAULT_TORCH}" in accl_build._requirements()
        monkeypatch.setenv("UV", "/usr/bin/uv")
        with pytest.raises(SystemExit, match="uv pip install --no-build-isolation"):
            accl_build._requirements()
