"""A request to stop, made by a signal and seen inside a compiled loop."""

import contextlib
import os
import signal
import sys
import threading

import tensorflow as tf


class StoppedError(Exception):
    """Ends a run whose stop was requested, after its step was saved."""


class StopRequest:
    """What SIGTERM (a preemption) and SIGINT (Ctrl-C) leave for a loop to see.

    Python runs a signal's handler between two instructions of the main
    thread, which may spend minutes inside one tf.function. So the handler's
    own wake-up pipe is read by a thread, which sets a variable that the loop
    in the function reads at each step.

    The first signal makes the request; a second of the same kind does what it
    did before.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self):
        #: bool variable on the CPU: whether the run is to stop.
        with tf.device("CPU:0"):
            self.flag = tf.Variable(False, trainable=False)
        #: signal.Signals member, None as long as there was none.
        self.signal = None
        self._previous = {}

    @contextlib.contextmanager
    def listening(self):
        """Listens while the block runs, in the main thread only."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        previous_fd = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in self.SIGNALS:
            handler = signal.signal(number, self._restore_handler)
            self._previous[number] = handler
        thread = threading.Thread(
            target=self._watch, args=(reading,), daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            for number, handler in self._previous.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(previous_fd)
            os.close(writing)  # Ends the thread.
            thread.join()
            os.close(reading)

    def _restore_handler(self, number, frame):
        del frame
        signal.signal(number, self._previous[number])

    def _watch(self, reading):
        # Other signals that Python handles write their numbers too.
        while numbers := os.read(reading, 64):
            for number in numbers:
                if self.signal is None and number in self.SIGNALS:
                    self.signal = signal.Signals(number)
                    self.flag.assign(True)
                    print(
                        f"{self.signal.name}: stops after the step in flight "
                        "and saves it",
                        file=sys.stderr,
                        flush=True,
                    )
