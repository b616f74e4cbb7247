"""What a person is told while a training runs."""

import pytest
from accl_harness.config import make_config
from accl_harness.training import progress
from accl_harness.training.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def steps(shown, clock, number, seconds):
    for _ in range(number):
        clock[0] += seconds
        shown.step()


def test_the_time_that_is_left_is_told_once_after_a_few_steps(clock, capsys):
    shown = Progress(make_config("small", epochs=10), steps=75, visible=True)
    shown.start(0)
    steps(shown, clock, 3, 5.0)  # slow first steps do not count
    steps(shown, clock, 10, 0.2)
    told = capsys.readouterr().err
    assert "about 2 minutes to go: 737 steps of 200 ms" in told
    steps(shown, clock, 100, 0.2)
    assert "to go" not in capsys.readouterr().err


def test_a_resumed_training_counts_what_is_left(clock, capsys):
    shown = Progress(make_config("small", epochs=10), steps=75, visible=True)
    shown.start(8)
    steps(shown, clock, 13, 60.0)
    assert "about 2.3 hours to go: 137 steps of 60000 ms" in capsys.readouterr().err


def test_a_training_of_a_few_steps_says_nothing(clock, capsys):
    shown = Progress(make_config("small", epochs=1), steps=13, visible=True)
    shown.start(0)
    steps(shown, clock, 13, 1.0)
    assert "to go" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (4, "half a minute"),
        (31, "a minute"),
        (61, "1 minute"),
        (5340, "89 minutes"),
        (5430, "1.5 hours"),
    ],
)
def test_durations(seconds, words):
    assert progress._duration(seconds) == words
