"""A run's folder: what a power cut, a second process or an odd name leaves of it."""

import json
import math
import os
import signal
import subprocess
import sys

import pytest
import torch
import yaml
from accl_harness import storage
from accl_harness.config import changed_options
from accl_harness.config_file import load_config, save_config
from accl_harness.data.fingerprint import fingerprint
from accl_harness.data.phantom import write_phantom
from accl_harness.errors import Damaged, HarnessWarning, NoSpace, UserError
from accl_harness.experiments.single import evaluate, run_training
from accl_harness.run import Run, ScoreFolder
from accl_harness.storage import locked, read_json, write_atomically, write_json, write_text
from accl_harness.training import load_run
from small_runs import column, phantom_folder, small_config

DAMAGE = {"empty": b"", "zeros": bytes(200), "torn": b'{"dsc": 0.', "latin": b"na\xefve: \xe9"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(phantom_folder(tmp_path_factory.mktemp("data")))


@pytest.fixture
def finished(data, tmp_path):
    config = small_config(data=data, out=str(tmp_path / "run"), method="sccl", epochs=2)
    return config, Run(run_training(config, quiet=True))


def quietly(function, *arguments, **options):
    """Call and return (result, texts of the harness's own warnings)."""
    with pytest.warns(HarnessWarning) as caught:
        result = function(*arguments, **options)
    return result, [str(w.message) for w in caught if w.category is HarnessWarning]


# --- files


def test_json_writes_null_for_what_json_has_no_word_for(tmp_path):
    nan, inf = float("nan"), float("inf")
    write_json(tmp_path / "x.json", {"bounds": (10.0, inf), "deep": [{"a": nan}, -inf], "n": 3})
    assert read_json(tmp_path / "x.json") == {
        "bounds": [10.0, None],
        "deep": [{"a": None}, None],
        "n": 3,
    }


def test_names_that_are_not_utf8_come_back_as_they_were(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    write_json(tmp_path / "x.json", {name: "grün"})
    assert read_json(tmp_path / "x.json") == {name: "grün"}
    write_text(tmp_path / "x.txt", f"{name} grün")
    assert (tmp_path / "x.txt").read_text(encoding="utf-8") == "caf\\udce9 grün"


def test_the_file_and_its_folder_are_synced_before_and_after_the_name_changes(
    tmp_path, monkeypatch
):
    done, right = [], os.replace
    monkeypatch.setattr(
        storage.os, "fsync", lambda fd: done.append(os.readlink(f"/proc/self/fd/{fd}"))
    )
    monkeypatch.setattr(
        storage.os, "replace", lambda a, b: (done.append(f"name {b.name}"), right(a, b))
    )
    write_atomically(tmp_path / "new" / "x", b"content")
    folder = str(tmp_path / "new")
    assert done == [f"{folder}/x.partial", "name x", folder]


def test_every_writer_of_a_run_goes_through_the_one_that_syncs(finished, tmp_path, monkeypatch):
    """With a full disk under that writer, none of the run's files can be changed."""
    config, run = finished
    before = {p: p.read_bytes() for p in run.folder.rglob("*") if p.is_file()}

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    writes = (
        lambda: run.save_config(config),
        lambda: run.record_data("data", "digest"),
        lambda: run.save_metrics({}),
        lambda: run.save_per_image(["name"], []),
        lambda: run.save_rows(["epoch"], []),
        lambda: run.save_checkpoint({"epoch": 9}),
    )
    for write in writes:
        with pytest.raises(NoSpace, match=r"no space left to write .*run/"):
            write()
    assert {p: p.read_bytes() for p in run.folder.rglob("*") if p.is_file()} == before


# --- damage


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE)
def test_damaged_scores_are_made_again(finished, content):
    config, run = finished
    scores = run.metrics_file.read_bytes()
    run.metrics_file.write_bytes(content)
    _, warned = quietly(run_training, config, quiet=True, resume=True)
    assert "metrics.json is damaged" in warned[0]
    assert "scores are made again" in warned[0]
    assert run.metrics_file.read_bytes() == scores


def test_evaluation_of_a_run_with_damaged_scores_keeps_the_trainings_facts(finished, capsys):
    _, run = finished
    scores = run.metrics()
    run.metrics_file.write_bytes(b"")
    metrics, _ = quietly(evaluate, run.folder)
    for name in ("annotation_ratio", "bounds", "warnings", "dsc", "dsc_per_image"):
        assert metrics[name] == scores[name], name
    assert metrics["seconds"] == pytest.approx(scores["seconds"], abs=1e-3)


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE)
def test_damaged_data_record_says_what_to_do(finished, content):
    config, run = finished
    run.metrics_file.unlink()
    run.data_file.write_bytes(content)
    with pytest.raises(Damaged, match=r"data\.json is damaged .*: it says which data .*delete it"):
        run_training(config, quiet=True, resume=True)
    run.data_file.unlink()
    run_training(config, quiet=True, resume=True)
    assert read_json(run.data_file)["fingerprint"] == fingerprint(config.data)


@pytest.mark.parametrize("content", [b"", bytes(50), b"size: [", b"na\xefve: 1\n"])
def test_damaged_config_is_taken_from_the_checkpoint(finished, content):
    config, run = finished
    run.config_file.write_bytes(content)
    found, (warned,) = quietly(run.config)
    assert found == config
    assert "config.yaml is damaged" in warned
    assert "checkpoint's options count" in warned
    trained, _ = quietly(load_run, run.folder)
    assert trained.epoch == 2
    run.metrics_file.unlink()
    quietly(run_training, config, quiet=True, resume=True)
    assert load_config(run.config_file) == config


def test_damaged_config_without_a_copy_says_what_to_do(tmp_path):
    run = Run(tmp_path)
    run.config_file.write_bytes(b"")
    run.save_checkpoint({"epoch": 1})  # as an earlier version wrote it
    with pytest.raises(Damaged, match=r"config\.yaml is damaged .*: put a copy in its place"):
        run.config()


@pytest.mark.parametrize("damage", ["torn", "missing", "empty"])
def test_run_goes_on_from_the_checkpoint_before_a_damaged_one(data, tmp_path, damage):
    options = {"data": data, "method": "fs_ce", "epochs": 4}
    whole = Run(run_training(small_config(out=str(tmp_path / "whole"), **options), quiet=True))
    config = small_config(out=str(tmp_path / "run"), **options)

    class Stop(Exception):
        pass

    def stop(row):
        if row["epoch"] == 3:
            raise Stop

    with pytest.raises(Stop):
        run_training(config, quiet=True, on_epoch=stop)
    run = Run(tmp_path / "run")
    last = run.checkpoint.read_bytes()
    if damage == "missing":
        run.checkpoint.unlink()
        run_training(config, quiet=True, resume=True)
    else:
        run.checkpoint.write_bytes(last[: len(last) // 2] if damage == "torn" else b"")
        _, warned = quietly(run_training, config, quiet=True, resume=True)
        assert "last.pt is damaged: the checkpoint before it counts, of epoch 2" in warned[0]
    ours, theirs = run.load_checkpoint(), whole.load_checkpoint()
    assert ours["epoch"] == theirs["epoch"] == 4
    for name, weight in theirs["generator"].items():
        assert torch.equal(ours["generator"][name], weight), name
    assert column(run.folder, "epoch") == ["1", "2", "3", "4"]
    assert [path.name for path in run.checkpoint.parent.iterdir()] == ["last.pt"]


def test_both_checkpoints_damaged_names_the_last(tmp_path):
    run = Run(tmp_path)
    for epoch in (1, 2):
        run.save_checkpoint({"epoch": epoch})
    run.checkpoint.write_bytes(b"")
    run.previous_checkpoint.write_bytes(b"x")
    with pytest.raises(Damaged, match=r"last\.pt cannot be read as a checkpoint"):
        run.load_checkpoint()


def test_checkpoint_of_another_runs_network_is_named(finished, data, tmp_path):
    _, run = finished
    save_config(run.config().replace(width=4), run.config_file)
    with pytest.raises(UserError, match=r"last\.pt does not fit the network that .*config\.yaml"):
        load_run(run.folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(300),
        b"epoch,dsc\n1,0.5\n" + bytes(40) + b"\n3,0.25\n",
        b"epoch,dsc\n1,0.5\n\xff\xfe,x\n3,0.25\n",
        b"epoch,dsc\n1,0.5\nx" + b"9" * 200_000 + b"\n3,0.25\n",
        b"epoch,dsc\n1,0.5\n2,0.2,7\n3,0.25\n2",
    ],
    ids=["empty", "zeros", "zeros-inside", "bytes", "long", "extra-and-torn"],
)
def test_garbled_rows_of_the_curves_are_left_out(tmp_path, content):
    run = Run(tmp_path)
    run.curves_file.write_bytes(content)
    rows = run.curves()
    kept = [(row["epoch"], row["dsc"]) for row in rows if row["epoch"] != 2]
    assert kept == ([] if len(content) in (0, 300) else [(1.0, 0.5), (3.0, 0.25)])


def test_curves_without_a_file_are_none(tmp_path):
    assert Run(tmp_path).rows() == []


# --- two processes at once


_HOLD = """
import sys, time
from pathlib import Path
from accl_harness.storage import locked
with locked(Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_keeps_others_out_and_a_kill_frees_it(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "PATIENCE", 0.1)
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=-1) as holder:
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(UserError, match="another process is training in"),
            Run(tmp_path).locked(),
        ):
            raise AssertionError("entered")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with Run(tmp_path).locked():
        pass
    assert Run(tmp_path).is_empty


def test_a_lock_waits_for_a_process_that_just_ends(tmp_path, monkeypatch):
    held = locked(tmp_path, "busy")
    held.__enter__()
    monkeypatch.setattr(storage.time, "sleep", lambda _: held.__exit__(None, None, None))
    with locked(tmp_path, "busy"):
        pass


def test_a_second_training_of_the_same_run_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "PATIENCE", 0.1)
    config = small_config(data=data, out=str(tmp_path / "run"), method="fs_ce", epochs=2)

    def again(row):
        with pytest.raises(UserError, match=r"another process is training in .*run: wait"):
            run_training(config, quiet=True, resume=True)

    run = run_training(config, quiet=True, on_epoch=again)
    assert column(run, "epoch") == ["1", "2"]


# --- odd values and names


@pytest.mark.parametrize("bounds", [(10.0, math.inf), (-math.inf, 90.0), (math.nan, 90.0)])
def test_one_sided_bounds_train_score_and_resume(data, tmp_path, bounds):
    config = small_config(data=data, out=str(tmp_path / "run"), method="sccl", bounds=bounds)
    run = Run(run_training(config.replace(epochs=1), quiet=True))
    assert run.metrics()["bounds"] == [b if math.isfinite(b) else None for b in bounds]
    assert changed_options(run.config(), config.replace(epochs=1)) == {}
    run.metrics_file.unlink()
    run_training(config.replace(epochs=1), quiet=True, resume=True)


@pytest.mark.parametrize("prefix", [b"price$x^$_", b"caf\xe9_", b"[red]_", "日本_é_".encode()])
def test_any_file_name_trains_scores_and_evaluates(tmp_path, capsys, prefix):
    root = write_phantom(tmp_path / "set", n_train=2, n_test=2, size=32)
    for path in [p for p in root.glob("t*/*/*") if p.is_file()]:
        os.rename(path, os.fsencode(path.parent) + b"/" + prefix + os.fsencode(path.name))
    config = small_config(data=str(root), out=str(tmp_path / "run"), method="fs_ce", epochs=1)
    run = Run(run_training(config, quiet=True))
    names = list(run.metrics()["dsc_per_image"])
    assert len(names) == 2
    assert all(os.fsencode(name).startswith(prefix) for name in names)
    assert (run.figures / "worst.png").read_bytes().startswith(b"\x89PNG")
    assert run.per_image_file.read_text(encoding="utf-8").count("\n") == 3
    evaluate(run.folder, root, out=tmp_path / "a[" / "b]")  # Rich would read the end of a style
    assert "a[/b]" in capsys.readouterr().out


def test_digest_of_the_data_stays_what_it_was(tmp_path):
    """Else no run of an earlier version could go on."""
    for kind, content in (("images", b"abc"), ("masks", b"d")):
        (tmp_path / "train" / kind).mkdir(parents=True)
        (tmp_path / "train" / kind / "é.png").write_bytes(content)
    assert fingerprint(tmp_path) == "374306013e3fe00afa8de4e23050df21"


def test_evaluation_here_is_named_after_the_folder(finished, monkeypatch, capsys):
    config, run = finished
    monkeypatch.chdir(config.data)
    evaluate(run.folder, ".")
    assert [path.name for path in (run.folder / "evaluation").iterdir()] == ["phantoms-test"]


def test_options_survive_yaml_whatever_their_text(tmp_path):
    config = small_config(data=os.fsdecode(b"caf\xe9"), out="grün: [x]", bounds=(3.0, math.inf))
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["out"] == "grün: [x]"


def test_a_folder_of_scores_refuses_other_data(tmp_path):
    scores = ScoreFolder(tmp_path)
    scores.refuse_other_data("anywhere", "1")
    scores.record_data("here", "1")
    scores.refuse_other_data("moved", "1")
    with pytest.raises(UserError, match=r"belongs to other images, .* \(here\) than there holds"):
        scores.refuse_other_data("there", "2")
    assert json.loads((tmp_path / "data.json").read_text()) == {"data": "here", "fingerprint": "1"}


def test_scores_of_an_earlier_version_have_the_names_of_now(tmp_path):
    (tmp_path / "metrics.json").write_text('{"likeness": 0.5, "likeness_of_masks": 0.25, "dsc": 1}')
    now = {"mean_pairwise_dsc": 0.5, "mean_pairwise_dsc_of_masks": 0.25, "dsc": 1}
    assert Run(tmp_path).metrics() == now
