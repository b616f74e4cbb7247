"""report.html of a run that a browser shows while it trains."""

import csv
import re

import pytest
from accl_harness.cli import main
from accl_harness.experiments.single import run_training
from accl_harness.report import live
from accl_harness.run import Run
from small_runs import phantom_folder, small_config


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return phantom_folder(tmp_path_factory.mktemp("live"))


def config(data, out, **options):
    return small_config(data=str(data), out=str(out), method="partial_accl", dropout=0.5, **options)


def rows(run):
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        return [
            {key: value for key, value in row.items() if "seconds" not in key}
            for row in csv.DictReader(file)
        ]


def test_a_page_while_it_trains_and_one_at_the_end(data, tmp_path, monkeypatch):
    monkeypatch.setattr(live, "SHARE", 0)
    pages = []

    def look(row):
        pages.append((tmp_path / "run/report.html").read_text(encoding="utf-8"))

    options = config(data, tmp_path / "run", epochs=3)
    run = run_training(options, quiet=True, live=True, on_epoch=look)
    assert [re.search(r"Epoch (\d) of 3", page)[1] for page in pages] == ["1", "2", "2"]
    for page in pages:
        assert '<meta http-equiv="refresh" content="20">' in page
        assert page.count("data:image/png") == 2  # curves and images
        assert "Test images" not in page
    end = (run / "report.html").read_text(encoding="utf-8")
    assert "Epoch 3 of 3." in end
    assert 'http-equiv="refresh"' not in end
    assert end.count("data:image/png") == 3
    assert "DSC x100" in end
    # Looking changes nothing.
    plain = run_training(options.replace(out=str(tmp_path / "plain")), quiet=True)
    assert rows(plain) == rows(run)
    assert not (plain / "report.html").exists()


def test_the_page_costs_a_twentieth_of_the_time(data, tmp_path, monkeypatch):
    clock, written = [0.0], []
    report = live.LiveReport.__new__(live.LiveReport)
    report.config, report._next = config(data, tmp_path, epochs=1000), 0.0

    def write(epoch):
        written.append(clock[0])
        clock[0] += 2  # seconds that a page takes

    report.write = write
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])
    for epoch in range(1, 200):
        clock[0] += 1
        report({"epoch": epoch})
    assert written[:3] == [1.0, 43.0, 85.0]


def test_the_command_writes_it_and_shows_the_same_images(data, tmp_path):
    words = f"train --data {data} --out {tmp_path / 'run'} --method partial_ce --epochs 2 --size 32"
    words += " --width 2 --backend reference --accelerator cpu --tensorboard false"
    assert main(words.split()) == 0
    run = Run(tmp_path / "run")
    assert (run.folder / "report.html").is_file()
    assert (run.figures / "progress.png").is_file()
