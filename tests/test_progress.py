"""One line that is rewritten on a terminal and repeated in a log."""

import io

from official_lrm import progress
from official_lrm.progress import ProgressLine


class _Terminal(io.StringIO):
    def isatty(self):
        return True


class _Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


def test_a_terminal_gets_one_line_with_the_time_left(monkeypatch):
    clock, stream = _Clock(monkeypatch), _Terminal()
    line = ProgressLine("train", 500, stream)

    line.update(100, "2.5 bpc")
    clock.now += 10
    line.update(200, "2.4 bpc")
    line.close()

    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("train  200/500  40%  2.4 bpc  ETA 0:30\n")
    assert text.count("\r") == 2


def test_a_shorter_line_leaves_nothing_of_a_longer_one(monkeypatch):
    clock, stream = _Clock(monkeypatch), _Terminal()
    line = ProgressLine("x", None, stream)

    line.update(1, "a long text")
    clock.now += 1
    line.update(2, "b")

    assert stream.getvalue().split("\r")[2] == "x  2  b".ljust(
        len("x  1  a long text")
    )


def test_a_log_gets_a_line_now_and_then_and_the_last(monkeypatch):
    clock, stream = _Clock(monkeypatch), io.StringIO()
    line = ProgressLine("train", 100, stream, interval=10)

    for step in range(1, 101):
        clock.now += 1
        line.update(step)
    line.close()

    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("train  100/100  100%")
    assert "\r" not in stream.getvalue()


def test_hours_and_a_resumed_run(monkeypatch):
    clock, stream = _Clock(monkeypatch), _Terminal()
    line = ProgressLine("train", 1000, stream)

    line.update(900)  # 899 of them were an earlier run's.
    clock.now += 100
    line.update(910)

    assert "ETA 15:00" in stream.getvalue()
    clock.now += 3690
    line.update(1000)
    assert "1:03:10 taken" in stream.getvalue()
