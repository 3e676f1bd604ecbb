"""One line that tells how far long work is."""

import sys
import time


class ProgressLine:
    """Reports progress with an estimate of the time left.

    On a terminal one line is rewritten in place; elsewhere a line is printed
    at most every `interval` seconds, so that logs stay short.

    ```
    train  300/1500  20%  2.871 bpc  8,113 tokens/s  ETA 2:31
    ```

    Args:
        label: what is being done.
        total: number of steps, or None where it is not known.
        stream: where to write; standard error by default.
        interval: seconds between lines where `stream` is no terminal.
    """

    def __init__(self, label, total=None, stream=None, interval=10.0):
        self._label = label
        self._total = total
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._interval = 0.2 if self._terminal else interval
        self._start = time.monotonic()
        self._first_done = None
        # Work that is done within the interval shows its last line only.
        self._last_shown = None if self._terminal else self._start
        self._width = 0

    def update(self, done, text=""):
        """Shows that `done` steps are done.

        Args:
            done: steps done so far, those of an earlier run included.
            text: figures to show.
        """
        now = time.monotonic()
        if self._first_done is None:
            # The rate counts from here: a resumed run has not done the
            # earlier steps, and the first call includes tracing.
            self._first_done, self._start = done, now
        finished = self._total is not None and done >= self._total
        if (
            self._last_shown is not None
            and now - self._last_shown < self._interval
            and not finished
        ):
            return
        self._last_shown = now
        line = f"{self._label}  {done:,}"
        if self._total is not None:
            line += f"/{self._total:,}  {100 * done // self._total}%"
        if text:
            line += f"  {text}"
        if self._total is not None and done > self._first_done:
            rate = (now - self._start) / (done - self._first_done)
            if finished:
                line += f"  {_duration(now - self._start)} taken"
            else:
                line += f"  ETA {_duration(rate * (self._total - done))}"
        self._write(line)

    def close(self):
        """Ends the line on a terminal."""
        if self._terminal and self._width:
            self._stream.write("\n")
            self._stream.flush()
            self._width = 0

    def _write(self, line):
        if self._terminal:
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()


def _duration(seconds) -> str:
    seconds = int(round(seconds))
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{seconds:02d}"
    return f"{minutes}:{seconds:02d}"
