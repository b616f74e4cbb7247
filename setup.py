"""Hands the build to CMake and Ninja; what the package is stands in pyproject.toml."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "build_backend"))
from accl_build import find_cmake, find_ninja, find_torch, torch_requirement  # noqa: E402

FILES = ("libaccl_ext_ops.so", "_build_config.json")  # besides the module itself


class FreshBuild(build_py):
    """Without what an earlier build left in build/lib: a removed module would come back."""

    def run(self):
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


def parallel_jobs() -> str:
    jobs = os.environ.get("MAX_JOBS", "").strip() or str(len(os.sched_getaffinity(0)))
    if not (jobs.isascii() and jobs.isdigit() and int(jobs) > 0):
        raise SystemExit(f"accl_ext: MAX_JOBS must be a whole number above 0, not '{jobs}'")
    return jobs


def point_to(link: Path, folder: Path) -> Path:
    """A symbolic link, made anew, to the folder."""
    link.unlink(missing_ok=True)
    link.symlink_to(folder, target_is_directory=True)
    return link


class CMakeBuild(build_ext):
    """Installs what CMake builds into the wheel, or beside the sources if editable."""

    def run(self):
        cmake, torch = find_cmake(), find_torch()
        compilers = os.environ.get("CXX", "c++ g++ clang++").split()
        if not any(map(shutil.which, compilers)):
            raise SystemExit(
                f"accl_ext: no C++ compiler ({', '.join(compilers)}): install one, for example "
                "with 'apt-get install g++', or name one in CXX"
            )
        if cmake is None:
            raise SystemExit("accl_ext: no CMake 3.24 or newer: pip install cmake")
        if torch is None:
            raise SystemExit("accl_ext: no torch to build against: pip install torch")
        ninja, jobs = find_ninja(), parallel_jobs()
        build = self._build_folder()
        build.mkdir(parents=True, exist_ok=True)
        # Every decision is made anew, but an object stays whose command and sources are the same.
        # The link keeps the command the same when torch itself moves from pip's environment for the
        # build to the user's.
        (build / "CMakeCache.txt").unlink(missing_ok=True)
        configure = [
            *("-S", str(ROOT), "-B", str(build)),
            *(["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []),
            f"-DCMAKE_BUILD_TYPE={'Debug' if self.debug else 'Release'}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DACCL_EXT_TORCH={point_to(build / 'torch', torch)}",
            "-DACCL_EXT_TESTS=OFF",
        ]
        self._call(cmake, *configure)
        self._call(cmake, "--build", str(build), "--parallel", jobs)
        self._call(cmake, "--install", str(build), "--prefix", str(self._target()))

    def _call(self, *command):
        print("accl_ext:", *command, flush=True)
        if subprocess.run(command).returncode != 0:
            raise SystemExit(f"accl_ext: the build failed in '{' '.join(command[:3])}': see above")

    def _in_place(self) -> bool:
        return bool(self.inplace or getattr(self, "editable_mode", False))

    def _build_folder(self) -> Path:
        # setuptools gives an editable install a folder that it throws away.
        kept = ROOT / "build" / f"temp.{self.plat_name}-{sys.implementation.cache_tag}"
        return kept if self._in_place() else Path(self.build_temp).resolve()

    def _target(self) -> Path:
        return ROOT if self._in_place() else Path(self.build_lib).resolve()

    def _files(self) -> list[str]:
        return [self.get_ext_filename("accl_ext._C"), *(f"accl_ext/{name}" for name in FILES)]

    def get_outputs(self):
        return [str(Path(self.build_lib) / name) for name in self._files()]

    def get_output_mapping(self):
        if not self._in_place():
            return {}
        return {str(Path(self.build_lib) / name): str(ROOT / name) for name in self._files()}


setup(
    ext_modules=[Extension("accl_ext._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "build_py": FreshBuild},
    install_requires=[torch_requirement()],
)
