"""The command line: the lines scripts rely on, every example of the help, errors as plain lines."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accl_harness.cli import main, overview, parser_of
from accl_harness.commands import COMMANDS
from accl_harness.config import TrainConfig
from accl_harness.errors import UserError
from accl_harness.option_groups import GROUPS
from accl_harness.run import Run
from small_runs import phantom_folder

import accl_ext

FUSED = accl_ext.build_info()["loaded"]
SMALL = "--size 32 --width 2 --epochs 1 --backend reference --accelerator cpu --tensorboard false"


def run(line: str) -> int:
    return main(shlex.split(line))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return phantom_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_answers_under_a_second_and_loads_no_torch():
    code = "import sys; from accl_harness.cli import main; main(['--help']); "
    code += "print('torch' in sys.modules or 'monai' in sys.modules)"
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = os.times()
    assert done.stdout.endswith("False\n")
    # Processor time: the clock would count what other processes do.
    assert after.children_user + after.children_system < (
        1 + before.children_user + before.children_system
    )


def test_overview_names_every_command(capsys):
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert shown.strip() == overview()
    for name in COMMANDS:
        assert f"\n  {name} " in shown


def test_the_commands_are_those_of_the_specification():
    assert list(COMMANDS) == [
        *(
            "phantom",
            "import",
            "mark",
            "weaken",
            "references",
            "grow",
            "train",
            "evaluate",
            "predict",
            "export",
        ),
        *("compare", "sweep", "verify", "bench", "info"),
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_shows_its_example_and_hyphens(name):
    text = parser_of(name).format_help()
    assert text.endswith(f"example:\n  {COMMANDS[name].example}\n")
    assert COMMANDS[name].example.startswith(f"accl {name}")
    options = [word for word in text.split() if word.startswith("--")]
    assert not [option for option in options if "_" in option.split("=")[0]]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_entry_of_the_help_is_a_sentence_and_names_options_of_the_command_alone(name):
    parser = parser_of(name)
    known = {option for action in parser._actions for option in action.option_strings}
    known = {option.replace("_", "-") for option in known} | {"--debug", "--crf"}
    text = parser.format_help().partition("example:")[0]
    assert set(re.findall(r"--[a-z][\w.-]*[a-z]", text)) <= known
    for action in parser._actions:
        if action.dest == "help":
            continue
        entry = str(action.help).partition(" (type:")[0].strip()
        assert entry.endswith("."), action.dest
        assert len(entry.split()) >= 4, action.dest
        assert "`" not in entry, action.dest


def test_the_help_of_a_training_shows_the_options_in_groups_and_the_first_ones_first():
    groups = [group for group in parser_of("train")._action_groups if group._group_actions]
    titles = [group.title for group in groups]
    assert titles[0] == "The options that matter first"
    for part in ("Data", "Weak labels", "Reference masks", "Networks", "Optimisation", "Objective"):
        assert [title for title in titles if title.startswith(part)], part
    assert "Run" in titles
    assert len(groups[0]._group_actions) == 12
    shown = [action.dest for group in groups for action in group._group_actions]
    assert sorted(shown) == sorted({action.dest for action in parser_of("train")._actions})


def test_every_group_of_options_has_a_check_and_the_config_asks_all(monkeypatch):
    asked = []
    for group in GROUPS:
        monkeypatch.setattr(group, "check", lambda config, name=group.__name__: asked.append(name))
    TrainConfig().check()
    assert asked == [group.__name__ for group in GROUPS]
    fields = [name for group in GROUPS for name in group.__dataclass_fields__]
    assert list(TrainConfig.__dataclass_fields__) == fields


def test_module_runs_as_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "accl_harness", "nothing"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("accl: no command 'nothing'; there are phantom, import,")
    assert done.stdout == ""


@pytest.mark.slow
def test_examples_of_the_help_run_as_written(folder, capsys):
    """One after the other in one folder; on the reference where the fused ops are not built."""
    for name, command in COMMANDS.items():
        if name in ("mark", "export") or (name in ("verify", "bench") and not FUSED):
            continue  # a window waits for a person; there is no DICOM here
        line = command.example.removeprefix("accl ")
        if name in ("train", "compare", "sweep") and not FUSED:
            line += " --backend reference"
        assert run(line) == 0, capsys.readouterr().err
    assert len(list((folder / "masks").iterdir())) == 4
    assert len(list((folder / "references").glob("*.png"))) == 20
    assert set(json.loads((folder / "table" / "table.json").read_text())) >= {"partial_ce", "fs_ce"}
    assert (folder / "table" / "report.html").is_file()


def test_lines_that_scripts_rely_on(folder, capsys):
    assert run("phantom data --n-train 5 --n-test 2 --shape ring --size 32 --seed 3") == 0
    assert len(list((folder / "data" / "train" / "masks").glob("*.png"))) == 5
    line = "train --data data --masks masks --method partial_accl --epochs 1 --seed 2"
    line += " --preset small --alpha 1e-3 --backend reference --out run --resume"
    line += " --size 32 --width 2 --accelerator cpu"
    assert run(line) == 0
    config = yaml.safe_load((folder / "run" / "config.yaml").read_text())
    assert config["seed"] == 2
    assert config["alpha"] == 1e-3
    assert config["preset"] == "small"
    before = (folder / "run" / "metrics.json").read_bytes()
    assert run(line) == 0
    assert (folder / "run" / "metrics.json").read_bytes() == before
    capsys.readouterr()
    assert run(line.replace(" --resume", "")) == 2
    assert "is not empty: give another --out, or --resume" in capsys.readouterr().err


def test_resolved_config_holds_every_option_and_runs_again(folder, data):
    assert run(f"train --data {data} --method fs_ce --out first {SMALL}") == 0
    written = yaml.safe_load((folder / "first" / "config.yaml").read_text())
    assert set(written) == set(TrainConfig.__dataclass_fields__)
    assert run("train --config first/config.yaml --out second --seed 7") == 0
    again = yaml.safe_load((folder / "second" / "config.yaml").read_text())
    assert {k for k in written if written[k] != again[k]} == {"out", "seed"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"size": 128, "width": 16, "epochs": 120}),
        (["--preset", "paper"], {"size": 256, "width": 64, "epochs": 200, "prior": 0.5}),
        (["--preset=paper", "--epochs=5"], {"size": 256, "epochs": 5}),
        (["--epochs", "5", "--preset", "paper"], {"size": 256, "epochs": 5}),
    ],
)
def test_flags_win_over_the_preset(words, expected):
    found = parser_of("train", words).parse_args(words)
    assert {name: found[name] for name in expected} == expected


def test_yaml_chooses_the_preset_and_flags_win_over_yaml(folder):
    (folder / "options.yaml").write_text("preset: paper\nepochs: 7\nlr: 1.0e-3\n")
    words = ["--config", "options.yaml", "--lr", "1e-5"]
    found = parser_of("train", words).parse_args(words)
    assert (found.width, found.epochs, found.lr) == (64, 7, 1e-5)
    words = ["--config", "options.yaml", "--preset", "small"]
    assert parser_of("train", words).parse_args(words).width == 16


def test_comparison_without_data_is_the_demo(folder):
    assert parser_of("compare").parse_args([]).preset == "demo"
    words = ["--data", "somewhere"]
    assert parser_of("compare", words).parse_args(words).preset == "small"
    (folder / "options.yaml").write_text("data: somewhere\n")
    words = ["--config", "options.yaml"]
    assert parser_of("compare", words).parse_args(words).preset == "small"


def test_nested_options_and_switches_reach_their_place(folder, data):
    line = f"train --data {data} --out run {SMALL} --method unpaired_accl --weak.keep-topology"
    line += " --weak.iterations 4 --references.kind augmented --references.painted 2"
    line += " --references.mask_bank.shift 0.1 --bounds [3,90] --pad"
    assert run(line) == 0
    config = yaml.safe_load((folder / "run" / "config.yaml").read_text())
    assert config["weak"]["keep_topology"] is True
    assert config["weak"]["iterations"] == 4
    assert config["references"]["mask_bank"]["shift"] == 0.1
    assert config["bounds"] == [3.0, 90.0]
    assert config["pad"] is True


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --epochs x", "--epochs: wanted int, got x"),
        ("train --method magic", "'accl_crf' or 'walker', got magic"),
        ("train --bounds 3", "--bounds: cannot be 3"),
        ("train --n-tests 3", "unrecognized arguments: --n-tests 3"),
        ("train --pre paper", "unrecognized arguments: --pre paper"),
        ("train --data . --out run --method sccl --alpha-scale 2", "alpha_scale counts with ACCL"),
        ("verify --steps 0", "steps must be at least 1, got 0"),
        ("bench --rounds 0", "rounds must be at least 1, got 0"),
        ("phantom new --seed -1", "seed: wanted 0 or more, got -1"),
        ("train --preset tiny", "--preset must be one of small, paper, demo, scribble, got 'tiny'"),
        ("train --config nothing.yaml", "--config: nothing.yaml cannot be read"),
        ("train --out run", "data is missing: name the data set's folder with --data"),
        ("train --data nothing --out run", "nothing: no such folder"),
        ("train --data nothing --out run --epochs 0", "epochs must be at least 1, got 0"),
        ("train --data . --out run --weak.radius -1", "weak.radius"),
        ("predict run", "the following arguments are required: images, out"),
        ("evaluate nothing", "is no run folder: it has no config.yaml"),
        ("phantom", "the following arguments are required: out"),
        ("weaken nothing weak", "nothing: no such folder"),
        ("weak", "no command 'weak'"),
    ],
)
def test_bad_input_is_one_or_two_plain_lines(folder, capsys, line, message):
    assert run(line) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) <= 2
    assert "Traceback" not in error
    assert not (folder / "run").exists()


def test_debug_shows_the_traceback(folder):
    with pytest.raises(UserError):
        run("train --data nothing --out run --debug")


def test_failed_check_is_status_1(monkeypatch, capsys):
    if not FUSED:
        pytest.skip("the fused ops are not built")
    right = accl_ext.accl_loss
    monkeypatch.setattr(accl_ext, "accl_loss", lambda *a, **options: right(*a, **options) * 1.01)
    assert run("verify --steps 1") == 1
    assert "over tolerance: accl_loss lsgan" in capsys.readouterr().err


def test_interrupt_leaves_a_run_that_goes_on(folder, data, monkeypatch, capsys):
    from accl_harness.training.curves import Curves

    line = f"train --data {data} --out run --method fs_ce {SMALL} --epochs 3"
    right = Curves.add

    def interrupted(curves, row):
        right(curves, row)
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Curves, "add", interrupted)
    assert run(line) == 130
    assert "goes on with --resume" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert run(line + " --resume") == 0
    assert (folder / "run" / "metrics.json").is_file()


def test_info_names_what_a_bug_report_needs(capsys):
    assert run("info") == 0
    shown = capsys.readouterr().out
    for fact in ("accl_ext: ", "accl_ext build loaded: ", "torch: ", "Python: ", "processor: "):
        assert f"\n{fact}" in "\n" + shown


@pytest.mark.parametrize("words", [["--crf", "0.3"], ["--crf=0.3"], ["--crf.weight", "0.3"]])
def test_the_short_form_of_the_crfs_weight(words):
    from accl_harness.cli import _normalised
    from accl_harness.options import config_of

    parser = parser_of("train", words)
    config = config_of(parser.instantiate(parser.parse_args(_normalised(words, set()))))
    assert config.weight("crf") == 0.3


def test_marks_and_three_painted_masks_are_all_that_a_training_needs(folder, data, capsys):
    """No training image has a mask, nothing is there to score; the masks get a prediction each."""
    assert run(f"weaken {data}/train/masks mine/train/weak --ratio 0.01") == 0
    images, painted = folder / "mine/train/images", folder / "mine/train/references"
    shutil.copytree(data / "train/images", images)
    painted.mkdir()
    for mask in sorted((data / "train/masks").iterdir())[:3]:
        shutil.copy(mask, painted)
    line = f"train --data mine --method accl_crf --out run {SMALL}"
    assert run(line) == 0
    assert "mine has no folder test: nothing will be scored" in capsys.readouterr().err
    metrics = Run("run").metrics()
    assert (metrics["method"], metrics["images"]) == ("accl_crf", 0)
    assert metrics["measured"]["mean_size"] > 0
    assert "dsc" not in metrics
    assert Path("run/figures/curves.png").is_file()
    assert run(f"{line} --resume") == 0  # it is finished
    assert "without test images, so without scores" in capsys.readouterr().out
    assert run("predict run --images mine/train/images --out predicted") == 0
    assert {path.name for path in Path("predicted").iterdir()} == {p.name for p in images.iterdir()}
    assert run("evaluate run") == 2
    assert "mine: has no folder test" in capsys.readouterr().err
