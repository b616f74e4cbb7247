"""The study of alpha: its grid, its files, and a search that never looks at test images."""

import json
import sys

import pytest
import tiny_experiments
from accl_harness.errors import Damaged, UserError
from accl_harness.experiments.sweep import collect, plan, sweep
from accl_harness.report.sweep import shades
from accl_harness.run import Run
from tiny_experiments import tiny_set


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_set(tmp_path_factory.mktemp("data"))


def tiny(data, out, **options):
    options = {"method": "unpaired_accl", "validation": 0.5, **options}
    return tiny_experiments.tiny(data, out, **options)


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    """Two alphas of the grid and one that was searched, two seeds for neither."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    sweep(tiny(data, out), alphas=[0.05, 0.005], search=1, seeds=[0], jobs=1)
    return out


def test_the_sweep_holds_the_grid_and_the_searched_alpha(done):
    result = json.loads((done / "sweep.json").read_text())
    assert result["method"] == "unpaired_accl"
    (searched,) = result["search"]["alphas"]
    assert 0.0005 <= searched <= 0.5
    assert sorted(map(float, result["alphas"])) == sorted({0.005, 0.05, searched})
    assert [float(alpha) for alpha in result["alphas"]] == sorted(map(float, result["alphas"]))
    for alpha, entry in result["alphas"].items():
        metrics = Run(done / "runs" / f"unpaired_accl-alpha{alpha}-seed0").metrics()
        assert entry["mean"]["dsc"] == metrics["dsc"]


def test_the_best_is_chosen_by_the_validation_images(done):
    result = json.loads((done / "sweep.json").read_text())
    runs = done / "runs"
    validation = {
        float(alpha): Run(runs / f"unpaired_accl-alpha{alpha}-seed0").curves()[-1]
        for alpha in result["alphas"]
    }
    best = max(row["dsc"] for row in validation.values())
    assert result["search"]["validation_dsc"] == best
    assert validation[result["search"]["best"]]["dsc"] == best


def test_figures_and_report_are_written(done):
    names = {path.name for path in (done / "figures").iterdir()}
    assert names == {"panel.png", "alpha.png", "curves.png"}
    assert (done / "report.html").read_text().count("data:image/png;base64,") == 3
    text = (done / "sweep.md").read_text()
    assert "| 0.005 | " in text
    assert "Best alpha by the validation images" in text


def test_a_second_call_trains_nothing(done, data, monkeypatch):
    def no_training(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr("accl_harness.experiments.single.run_training", no_training)
    before = json.loads((done / "sweep.json").read_text())
    sweep(tiny(data, done), alphas=[0.05, 0.005], search=1, seeds=[0], jobs=1)
    assert json.loads((done / "sweep.json").read_text()) == before


def test_an_interrupted_search_goes_on_with_its_alpha(data, tmp_path, monkeypatch):
    import accl_harness.experiments.single as training

    run_training, trained = training.run_training, []

    def interrupted(config, **options):
        trained.append(config.alpha)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return run_training(config, **options)

    monkeypatch.setattr(training, "run_training", interrupted)
    base = tiny(data, tmp_path)
    for expected in (KeyboardInterrupt, None):
        if expected is None:
            sweep(base, alphas=[0.01], search=1, seeds=[0], jobs=1)
        else:
            with pytest.raises(expected):
                sweep(base, alphas=[0.01], search=1, seeds=[0], jobs=1)
    assert trained[1] == trained[2]
    assert len(trained) == 3


@pytest.mark.parametrize(
    ("options", "config", "message"),
    [
        ({}, {"method": "fs_ce"}, "--method: wanted one that alpha weighs .* got fs_ce"),
        ({"alphas": [0.1, 0.1]}, {}, "--alphas: wanted different numbers above 0"),
        ({"alphas": [0.0]}, {}, "--alphas: wanted different numbers above 0"),
        ({"search": -1}, {}, "--search: wanted 0 or more trials, got -1"),
        ({"search": 2}, {"validation": 0.0}, "--search: wanted --validation above 0"),
        ({"jobs": 0}, {}, "--jobs: wanted at least 1"),
    ],
)
def test_bad_options_are_refused(data, tmp_path, options, config, message):
    with pytest.raises(UserError, match=message):
        sweep(tiny(data, tmp_path, **config), **options)


def test_a_search_without_optuna_is_refused_before_any_training(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"--search needs optuna.*pip install optuna .*'search'"):
        sweep(tiny(data, tmp_path), alphas=[0.01], search=1, seeds=[0], jobs=1)
    assert not (tmp_path / "runs").exists()
    # Without a search nothing needs it.
    sweep(tiny(data, tmp_path, epochs=1), alphas=[0.01], seeds=[0], jobs=1)


def test_the_papers_grid_is_the_default(data, tmp_path):
    from accl_harness.report.paper import ALPHA_STUDY

    assert list(ALPHA_STUDY["partial_accl"]) == [3e-4, 6e-4, 1e-3, 2e-3]
    assert list(ALPHA_STUDY["paired_accl"]) == [5e-3, 1e-2, 2e-2, 5e-2]
    configs = plan(tiny(data, tmp_path), [3e-4, 0.02], [0, 1])
    names = [config.out.rpartition("/")[2] for config in configs]
    assert names[0] == "unpaired_accl-alpha0.0003-seed0"
    assert names[3] == "unpaired_accl-alpha0.02-seed1"
    assert collect(configs) == {}


def test_a_method_of_ours_has_alphas_around_its_own(data, tmp_path):
    base = tiny(data, tmp_path, method="accl_crf", epochs=1)
    out = sweep(base, seeds=[0], jobs=1)
    tried = list(json.loads((out / "sweep.json").read_text())["alphas"])
    assert tried == ["0.1", "0.3", "0.9"]


def test_shades_go_from_dark_to_light():
    colours = shades(["a", "b", "c"])
    light = [sum(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in colours.values()]
    assert light == sorted(light)
    assert len(set(colours.values())) == 3
    assert len(shades(["only"])) == 1


def test_a_damaged_record_of_trials_says_what_to_do(data, tmp_path):
    (tmp_path / "optuna.db").write_bytes(b"no database" * 100)
    with pytest.raises(Damaged, match=r"optuna\.db cannot be read .*: delete it and give the same"):
        sweep(tiny(data, tmp_path), alphas=[0.01], search=1, seeds=[0], jobs=1)
    (tmp_path / "optuna.db").unlink()
    sweep(tiny(data, tmp_path), alphas=[0.01], search=1, seeds=[0], jobs=1)
