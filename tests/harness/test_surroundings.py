"""What a machine, a scheduler or a terminal hands to a program: none of it may cost a run."""

import errno
import io
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from accl_harness.cli import main
from accl_harness.config import make_config
from accl_harness.data.phantom import write_phantom
from accl_harness.errors import HarnessWarning, NoSpace, UserError
from accl_harness.experiments.single import run_training
from accl_harness.report import figures, single
from accl_harness.report.document import settings_of
from accl_harness.report.figures import Case, drawn, panel
from accl_harness.run import Run
from accl_harness.training import curves
from accl_harness.training.runtime import launch
from matplotlib.figure import Figure
from small_runs import phantom_folder, small_config

SMALL = "--size 32 --width 2 --epochs 1 --backend reference --accelerator cpu --tensorboard false"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(phantom_folder(tmp_path_factory.mktemp("data")))


def accl(line, cwd, **environment):
    """The command in a process of its own: (exit status, stdout and stderr)."""
    done = subprocess.run(
        [sys.executable, "-m", "accl_harness", *line.split()],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        cwd=cwd,
        capture_output=True,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


# --- figures


@pytest.mark.parametrize("name", ["price$x^$_", r"a\$b$", "$\\alpha$", os.fsdecode(b"caf\xe9")])
def test_a_file_name_is_never_read_as_a_formula(tmp_path, name, monkeypatch):
    shown, right = [], Figure.savefig

    def look(figure, *arguments, **options):
        shown.extend(axis.get_ylabel() for axis in figure.axes)
        assert not any(axis.yaxis.label.get_parse_math() for axis in figure.axes[:1])
        return right(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", look)
    image = np.zeros((8, 8))
    path = panel([Case(name, image, image, {"sccl": image})], {"sccl": "SCCL"}, tmp_path / "p.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert shown[0] == name.encode("utf-8", "backslashreplace").decode()


def test_a_persons_matplotlibrc_changes_nothing(tmp_path):
    import matplotlib

    image = np.arange(64.0).reshape(8, 8)
    case = Case("a", image, image > 30, {"sccl": image > 20}, {"sccl": 0.5})
    plain = panel([case], {"sccl": "SCCL"}, tmp_path / "a.png").read_bytes()
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "red", "font.size": 30}):
        assert panel([case], {"sccl": "SCCL"}, tmp_path / "b.png").read_bytes() == plain


def test_a_figure_that_fails_costs_a_warning_and_not_the_run(data, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no\nfont")

    monkeypatch.setattr(single, "panel", broken)
    monkeypatch.setattr(single, "training_curves", broken)
    config = small_config(data=data, out=str(tmp_path / "run"), method="fs_ce", epochs=1)
    with pytest.warns(HarnessWarning, match="RuntimeError: no font") as caught:
        run = Run(run_training(config, quiet=True))
    assert len([w for w in caught if w.category is HarnessWarning]) == 2
    assert run.metrics()["images"] == 2
    assert list(run.figures.iterdir()) == []


def test_a_missing_prediction_costs_the_comparison_a_figure(data, tmp_path):
    from accl_harness.experiments.compare import compare

    base = make_config("demo", data=data, out=str(tmp_path), size=32, width=2, epochs=1)
    base = base.replace(backend="reference", accelerator="cpu", tensorboard=False)
    options = {"methods": ["fs_ce"], "seeds": [0], "jobs": 1, "command": "accl compare"}
    compare(base, **options)
    whole = (tmp_path / "report.html").read_text()
    next((tmp_path / "runs" / "fs_ce-seed0" / "predictions").iterdir()).unlink()
    with pytest.warns(HarnessWarning, match="'panel of methods' is missing"):
        compare(base, **options)
    left = (tmp_path / "report.html").read_text()
    assert left.count("data:image/png") == whole.count("data:image/png") - 2
    assert "DSC x100" in left


def test_drawn_gives_what_was_drawn(tmp_path):
    assert drawn(lambda path: path, tmp_path) == tmp_path
    with pytest.warns(HarnessWarning, match="ValueError"):
        assert drawn(int, "x") is None


def test_figures_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(b"old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(figures.write_atomically.__globals__["os"], "fsync", full)
    with pytest.raises(NoSpace):
        figures.save(Figure(), tmp_path / "x.png")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_one_sided_bounds_are_told_in_words():
    config = make_config("demo", data="d", out="o", method="sccl")
    runs = {"sccl": {0: {"bounds": [10.0, None]}, 1: {"bounds": [None, 90.0]}}}
    runs["sccl"][2] = {"bounds": [3.0, 4.0]}
    for metrics in runs["sccl"].values():
        metrics |= {"annotation_ratio": 0.1, "backend": "fused", "device": "cpu"}
    shown = dict(settings_of([config], runs, "accl"))["size bounds"]
    assert shown == "training: at most 90 pixels, 3 to 4 pixels, at least 10 pixels"


# --- TensorBoard


@pytest.mark.parametrize("fails", ["import", "write"])
def test_tensorboard_costs_its_files_alone(data, tmp_path, monkeypatch, fails):
    class Broken:
        def add_scalar(self, *_):
            raise OSError(errno.ENOSPC, "no space")

    def writer(*_):
        if fails == "import":
            raise ImportError("No module named 'tensorboard'")
        return Broken()

    monkeypatch.setattr(curves, "_summary_writer", writer)
    config = small_config(data=data, out=str(tmp_path / "run"), method="fs_ce", tensorboard=True)
    with pytest.warns(HarnessWarning, match="no event files for TensorBoard") as caught:
        run = Run(run_training(config, quiet=True))
    assert len([w for w in caught if w.category is HarnessWarning]) == 1
    assert len(run.rows()) == 3
    assert run.is_finished


def test_without_tensorboard_there_are_no_event_files_unless_they_are_asked_for(
    data, tmp_path, monkeypatch
):
    config = small_config(
        data=data, out=str(tmp_path / "run"), method="fs_ce", epochs=1, tensorboard=None
    )
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError, match=r"tensorboard true needs tensorboard, .*pip install "):
        run_training(config.replace(tensorboard=True), quiet=True)
    assert not (tmp_path / "run").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error", HarnessWarning)
        run = Run(run_training(config, quiet=True))
    assert run.is_finished
    assert not run.tensorboard.exists()
    monkeypatch.undo()
    run = Run(run_training(config.replace(out=str(tmp_path / "other")), quiet=True))
    assert any(run.tensorboard.iterdir())


# --- environment


@pytest.mark.parametrize(
    "environment",
    [
        {"MPLBACKEND": "module://no_such_package.backend_inline"},
        {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "job", "SLURM_PROCID": "0"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["notebook", "slurm", "ascii-locale"],
)
@pytest.mark.slow
def test_a_training_comes_to_its_end(tmp_path, environment):
    root = write_phantom(tmp_path / "grün", n_train=2, n_test=2, size=32)
    for path in sorted(p for p in root.glob("t*/*/*") if p.is_file()):
        path.rename(path.with_name(f"é_{path.name}"))
    status, text = accl(
        f"train --data grün --method fs_ce --out run {SMALL}", tmp_path, **environment
    )
    assert status == 0, text
    assert "Traceback" not in text
    assert Run(tmp_path / "run").is_finished


def test_processes_that_nobody_started_are_told(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match="WORLD_SIZE is 2 but RANK is not set"):
        launch(small_config(batch_size=2))


def test_one_process_asks_no_scheduler(monkeypatch):
    for name, value in {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "job", "SLURM_JOB_ID": "1"}.items():
        monkeypatch.setenv(name, value)
    assert launch(small_config()).world_size == 1


def test_a_terminal_with_few_characters_gets_the_nearest(capsys, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    main(["--version"])
    print("63.4 ± 1.2 – … é \udce9")
    stream.flush()
    assert stream.buffer.getvalue().endswith(b"63.4 +- 1.2 - ... \\xe9 \\udce9\n")


# --- files of options


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_config_in_any_marked_encoding_is_read(tmp_path, monkeypatch, encoding):
    from accl_harness.options import given, with_config_text

    monkeypatch.chdir(tmp_path)
    (tmp_path / "o.yaml").write_bytes("data: grün\n".encode(encoding))
    for words in (["--config", "o.yaml"], ["--config=o.yaml"]):
        assert given(words, "data") == "grün"
        assert given(with_config_text(words), "data") == "grün"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"data: gr\xfcn\n", "o.yaml is not UTF-8 text"),
        (b"data: [\n", "o.yaml cannot be read"),
        (b"- data\n", "o.yaml must hold lines of 'option: value', got ['data']"),
        (b"datta: x\n", "'datta' is not accepted"),
        (b"", "data is missing"),
        (b"# nothing\n", "data is missing"),
    ],
)
def test_a_config_that_cannot_be_read_is_named(tmp_path, monkeypatch, capsys, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "o.yaml").write_bytes(content)
    assert main(["train", "--config", "o.yaml", "--out", "run"]) == 2
    assert message in capsys.readouterr().err


# --- what a person is told


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("train", "; a training goes on with --resume"),
        ("compare", "; the same command goes on where it stopped"),
        ("sweep", "; the same command goes on where it stopped"),
        ("evaluate", ""),
        ("info", ""),
    ],
)
def test_after_an_interruption_or_a_full_disk_the_advice_is_the_commands_own(
    monkeypatch, capsys, name, advice
):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.png")
    for error, status, text in (
        (KeyboardInterrupt(), 130, f"accl: interrupted{advice}\n"),
        (NoSpace("no space left to write x"), 2, f"left to write x: make room{advice}\n"),
        (full, 2, f"'x.png': make room{advice}\n"),
    ):

        def run(*_, error=error):
            raise error

        monkeypatch.setattr("accl_harness.cli._run", run)
        assert main([name]) == status
        assert capsys.readouterr().err.endswith(text)


def test_warnings_are_one_plain_line(monkeypatch, capsys):
    def run(*_):
        warnings.warn("look here", HarnessWarning, stacklevel=2)
        warnings.warn("look here", HarnessWarning, stacklevel=2)

    monkeypatch.setattr("accl_harness.cli._run", run)
    assert main(["info"]) == 0
    assert capsys.readouterr().err == "accl: warning: look here\n" * 2


def test_a_full_disk_in_another_process_is_told_the_same_way():
    import pickle

    from accl_harness.errors import Damaged

    for error in (NoSpace("no space left to write x"), Damaged("x", "is damaged", "delete it")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), str(error))


@pytest.mark.parametrize("command", ["verify", "info"])
def test_an_unknown_instruction_set_is_one_line(command):
    done = subprocess.run(
        [sys.executable, "-m", "accl_harness", command],
        env={**os.environ, "ACCL_EXT_ISA": "avx", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr == "accl: ACCL_EXT_ISA must be baseline, avx2 or avx512, got avx\n"
