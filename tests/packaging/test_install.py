"""`pip install .` in every situation a user can be in, each in an environment of its own.

Minutes each, so not part of a plain `pytest`: run `pytest -m install tests/packaging`. The build is
a CPU one unless ACCL_EXT_CUDA says otherwise. Each test works on a fresh copy of the sources in one
place, where build/ stays as for a user who installs again: what was compiled is used again.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from build_tools import CMAKE

pytestmark = pytest.mark.install

ROOT = Path(__file__).parents[2]
TORCH = os.environ.get("ACCL_TEST_TORCH", "torch==2.13.0")
CHECK = """
import accl_ext, torch
info = accl_ext.build_info()
assert info["loaded"], info
assert info["torch"].split(".")[:2] == torch.__version__.split(".")[:2], info
scores = torch.tensor([0.0, 3.0], requires_grad=True)
loss = accl_ext.accl_loss(scores)
loss.backward()
assert loss.item() == 2.5 and scores.grad.tolist() == [-1.0, 2.0], (loss, scores.grad)
print(accl_ext.__file__)
"""


class Environment:
    """A virtual environment that sees neither this one nor the sources."""

    def __init__(self, folder: Path):
        venv.create(folder, with_pip=True)
        self.python = folder / "bin" / "python"
        self.variables = {
            name: value
            for name, value in os.environ.items()
            if name not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")
        }
        self.variables.setdefault("ACCL_EXT_CUDA", "off")

    def run(self, *arguments, check=True, cwd="/", **variables):
        result = subprocess.run(
            [str(self.python), *map(str, arguments)],
            cwd=cwd,
            env={**self.variables, **variables},
            capture_output=True,
            text=True,
        )
        if check and result.returncode != 0:
            pytest.fail(f"{arguments} failed:\n{result.stdout[-6000:]}\n{result.stderr[-6000:]}")
        return result

    def pip(self, *arguments, **options):
        return self.run("-m", "pip", "--disable-pip-version-check", *arguments, **options)


def copy_sources(target: Path) -> Path:
    """The files that git knows (or, in a source distribution, all) as a fresh clone has them."""
    if (ROOT / ".git").exists():
        listing = subprocess.run(
            ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        names = [name for name in listing.split("\0") if name and (ROOT / name).is_file()]
    else:
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    return target


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("place") / "sources"


@pytest.fixture
def sources(place):
    for entry in place.iterdir() if place.exists() else ():
        if entry.is_dir() and entry.name != "build":
            shutil.rmtree(entry)
        elif entry.is_file():
            entry.unlink()
    return copy_sources(place)


@pytest.fixture(scope="module")
def with_torch(tmp_path_factory):
    environment = Environment(tmp_path_factory.mktemp("with_torch"))
    environment.pip("install", TORCH)
    return environment


@pytest.fixture
def clean(with_torch):
    """The environment with torch, and without accl_ext after the test."""
    yield with_torch
    with_torch.pip("uninstall", "-y", "accl-ext")


def pinned_torch(environment: Environment) -> str:
    code = "import importlib.metadata as m; print(*m.requires('accl-ext'), sep='\\n')"
    lines = environment.run("-c", code).stdout.splitlines()
    return next(line for line in lines if line.startswith("torch"))


def test_empty_environment(tmp_path, sources):
    environment = Environment(tmp_path / "empty")
    environment.pip("install", sources)
    installed = Path(environment.run("-c", CHECK).stdout.strip())
    assert installed.is_relative_to(tmp_path / "empty")
    assert pinned_torch(environment) == "torch==2.13.*"


def test_builds_against_the_torch_that_is_there(clean, sources):
    which_torch = ("-c", "import torch; print(torch.__version__, torch.__file__)")
    before = clean.run(*which_torch).stdout
    log = clean.pip("install", "-v", sources).stderr
    assert str(clean.python.parents[1]) in next(
        line for line in log.splitlines() if "-- accl_ext: torch" in line
    )
    assert "CPU only, because ACCL_EXT_CUDA=off" in log or "accl_ext: CUDA" in log
    assert (
        clean.run("-c", "import torch; print(torch.__version__, torch.__file__)").stdout == before
    )
    clean.run("-c", CHECK)
    version = before.split(".")
    assert pinned_torch(clean) == f"torch=={version[0]}.{version[1]}.*"
    # Inside the clone, which has no binary, the installed one is used.
    assert clean.run("-c", CHECK, cwd=sources).stdout.strip().startswith(str(sources))


def test_without_build_isolation(clean, sources):
    clean.pip("install", "setuptools>=77")
    clean.pip("install", "--no-build-isolation", sources)
    clean.run("-c", CHECK)


@pytest.mark.parametrize("isolation", [[], ["--no-build-isolation"]], ids=["isolated", "as_it_is"])
def test_editable(clean, sources, isolation):
    clean.pip("install", "setuptools>=77")
    clean.pip("install", *isolation, "-e", sources)
    assert clean.run("-c", CHECK).stdout.strip() == str(sources / "accl_ext" / "__init__.py")
    for name in ("libaccl_ext_ops.so", "_build_config.json", "py.typed"):
        assert (sources / "accl_ext" / name).is_file()
    clean.run("-c", "import accl_harness")


def test_build_gives_a_source_distribution_and_a_wheel(clean, sources, tmp_path):
    """``python -m build``, which makes the wheel from the source distribution alone."""
    clean.pip("install", "build", "setuptools>=77")
    clean.run("-m", "build", "--no-isolation", "--outdir", tmp_path, sources)
    (archive,), (wheel,) = tmp_path.glob("accl_ext-*.tar.gz"), tmp_path.glob("accl_ext-*.whl")
    check_source_distribution(archive, sources)
    check_wheel(wheel)
    clean.pip("install", wheel)
    installed = Path(clean.run("-c", CHECK).stdout.strip())
    assert installed.is_relative_to(clean.python.parents[1])
    torch_folder = clean.run("-c", "import torch; print(*torch.__path__)").stdout.strip()
    # A C++ program finds the operators in what the wheel installed.
    prefix = f"{torch_folder}/share/cmake;{installed.parent}"
    example = sources / "examples" / "libtorch"
    words = [CMAKE, "-S", example, "-B", tmp_path / "example", f"-DCMAKE_PREFIX_PATH={prefix}"]
    subprocess.run(words, check=True, env=clean.variables)
    # The harness trains from the wheel alone.
    clean.pip("install", f"{wheel}[harness]")
    accl = clean.python.with_name("accl")
    data, out = tmp_path / "data", tmp_path / "run"
    train = ("train", "--data", data, "--method", "accl_crf", "--epochs", "1", "--width", "4")
    clean.run(accl, "phantom", data, "--n-train", "4", "--n-test", "2", "--size", "64")
    clean.run(accl, *train, "--size", "64", "--out", out)
    assert json.loads((out / "metrics.json").read_text())["images"] == 2


def check_source_distribution(archive: Path, sources: Path):
    with tarfile.open(archive) as tar:
        names = {name.split("/", 1)[-1] for name in tar.getnames()}
    for folder in ("csrc", "python", "tests"):
        paths = (sources / folder).rglob("*.*")
        kept = {str(p.relative_to(sources)) for p in paths if ".egg-info" not in str(p)}
        assert kept <= names
    assert {"CMakeLists.txt", "LICENSE", "build_backend/accl_build.py"} <= names


def check_wheel(path: Path):
    with zipfile.ZipFile(path) as wheel:
        listed = wheel.namelist()
        config = json.loads(wheel.read("accl_ext/_build_config.json"))
        entry_points = wheel.read(
            next(name for name in listed if name.endswith("entry_points.txt"))
        ).decode()
    names = set(listed)
    assert len(names) == len(listed)
    assert {
        "accl_ext/include/accl_ext.h",
        "accl_ext/libaccl_ext_ops.so",
        "accl_ext/py.typed",
        "accl_ext/share/cmake/accl_ext/accl_extConfig.cmake",
        "accl_ext/share/cmake/accl_ext/accl_extTargets.cmake",
        "accl_harness/cli.py",
        "accl_harness/report/templates/page.html",
    } <= names
    assert not any(name.startswith(("csrc", "tests", "build_backend")) for name in names)
    assert config["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert "accl = accl_harness.cli:main" in entry_points


def test_second_build_compiles_nothing(tmp_path, clean, sources):
    """As README's second command after the first: torch has moved from the environment of the
    build, which is gone, to the user's. A changed source is compiled again."""

    def compiled(environment):
        log = environment.pip("install", "-v", "--force-reinstall", "--no-deps", sources).stderr
        assert "accl_ext: CPU only" in log
        return [line.split("/")[-1] for line in log.splitlines() if "Building CXX object" in line]

    environment = Environment(tmp_path / "empty")
    compiled(environment)
    assert compiled(clean) == []
    clean.run("-c", CHECK)
    (sources / "csrc" / "cpu" / "isa.cpp").open("a").write("// changed\n")
    assert compiled(clean) == ["isa.cpp.o"]


@pytest.fixture(scope="module")
def uv(tmp_path_factory):
    environment = Environment(tmp_path_factory.mktemp("uv"))
    if environment.pip("install", "uv", check=False).returncode != 0:
        pytest.skip("uv cannot be installed here")
    return environment.python.parent / "uv"


def uv_pip_install(uv, environment, *arguments):
    command = [uv, "pip", "install", "--python", environment.python, *arguments]
    return subprocess.run(
        [str(word) for word in command],
        cwd="/",
        env=environment.variables,
        capture_output=True,
        text=True,
    )


def test_uv_never_replaces_torch(uv, clean, sources):
    """By itself uv would build for the default torch, in an environment that hides the user's."""
    which_torch = ("-c", "import torch; print(torch.__version__, torch.__file__)")
    before = clean.run(*which_torch).stdout
    result = uv_pip_install(uv, clean, sources)
    assert result.returncode != 0
    assert "uv pip install --no-build-isolation ." in result.stderr
    clean.pip("install", "setuptools>=77")
    result = uv_pip_install(uv, clean, "--no-build-isolation", sources)
    assert result.returncode == 0, result.stderr
    assert clean.run(*which_torch).stdout == before
    clean.run("-c", CHECK)


def failing_install(environment, sources, **variables) -> str:
    result = environment.pip("install", sources, check=False, **variables)
    assert result.returncode != 0
    output = result.stdout + result.stderr
    assert "Traceback" not in output
    return output


def test_no_compiler_is_said_plainly(with_torch, sources):
    output = failing_install(with_torch, sources, CXX="/nowhere/c++")
    assert "accl_ext: no C++ compiler (/nowhere/c++): install one" in output


def test_unknown_cuda_option_is_said_plainly(with_torch, sources):
    output = failing_install(with_torch, sources, ACCL_EXT_CUDA="perhaps")
    assert "ACCL_EXT_CUDA must be auto, on or off, not 'perhaps'" in output
