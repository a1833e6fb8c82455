"""Progress tells how much is done, how fast, and how long it will take."""

from __future__ import annotations

import io

import pytest

from unlikeness.progress import Bar, Lines, Meter, Silent, format_seconds, on_stderr


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_meter_gives_the_recent_rate_and_the_time_left() -> None:
    clock = Clock()
    meter = Meter(100, window=10.0, clock=clock)
    assert meter.rate is None
    assert meter.seconds_left is None
    for _ in range(20):  # slow at first: one unit in 5 s, long ago by the end
        clock.now += 5.0
        meter.advance(1)
    for _ in range(40):
        clock.now += 0.5
        meter.advance(1)
    assert meter.done == 60
    assert meter.rate == pytest.approx(2.0, rel=0.05)
    assert meter.seconds_left == pytest.approx(20.0, rel=0.05)


def test_a_resumed_job_counts_only_its_own_work_into_the_rate() -> None:
    clock = Clock()
    meter = Meter(1000, initial=900, clock=clock)
    clock.now += 10.0
    meter.advance(10)
    assert meter.done == 910
    assert meter.rate == pytest.approx(1.0)
    assert meter.seconds_left == pytest.approx(90.0)


def test_units_slower_than_the_window_keep_their_rate_while_steps_are_told() -> None:
    clock = Clock()
    meter = Meter(10, window=30.0, clock=clock)
    for _ in range(3):
        for _ in range(200):
            clock.now += 1.0
            meter.advance(0)
        meter.advance(1)
    assert meter.rate == pytest.approx(1 / 200)
    clock.now += 100.0
    meter.advance(0)
    assert meter.rate == pytest.approx(1 / 200)
    assert meter.summary("picture", {}) == "200 s/picture, 23 min 20 s left"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59, "59 s"), (125, "2 min 05 s"), (3 * 3600 + 430, "3 h 07 min")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_lines_are_periodic_and_end_with_the_total() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, every=10.0, clock=clock)
    lines.start(100, "training", "step")
    for i in range(100):
        clock.now += 0.25
        lines.advance(loss=1 / (i + 1))
    lines.close()
    lines.close()
    said = stream.getvalue().splitlines()
    assert len(said) == 3  # after 10 s and 20 s, and at the end
    assert said[0] == "training: 40/100 step, 4 step/s, 15 s left, loss 0.025"
    assert said[-1] == "training: 100/100 step, 4 step/s, loss 0.01, 25 s in all"


@pytest.mark.parametrize("total", [3, None])
def test_every_kind_takes_the_same_calls(total: int | None) -> None:
    lines, bar = io.StringIO(), io.StringIO()
    for progress in (Silent(), Lines(lines), Bar(bar)):
        progress.close()
        progress.start(total, "work [0,1]", "picture")
        progress.advance()
        progress.start(total, "more work", "picture", initial=1)
        progress.advance(2, loss=0.5)
        progress.close()
        progress.close()
    assert "work [0,1]: 1" in lines.getvalue()
    assert "more work: 3" in lines.getvalue()
    assert "more work" in bar.getvalue()


def test_quiet_is_silent_and_a_pipe_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet, expected in ((True, ""), (False, "work: 1/1 it")):
        with on_stderr(quiet=quiet) as progress:
            progress.start(1, "work")
            progress.advance()
        err = capsys.readouterr().err
        assert err.startswith(expected)
        assert bool(err) is not quiet
