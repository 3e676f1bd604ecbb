"""Signals reach a loop inside a compiled function."""

import os
import signal
import threading
import time

import pytest
import tensorflow as tf

from official_lrm.training.stop_request import StopRequest


def send_soon(number, seconds=0.3):
    timer = threading.Timer(seconds, os.kill, (os.getpid(), number))
    timer.start()
    return timer


def counting_loop(stop):
    """Counts until the flag is set, in one call that holds the main thread."""
    limit = tf.constant(10**9)

    @tf.function
    def loop():
        count = tf.constant(0)
        while count < limit and not stop.flag:
            count += 1
        return count

    return loop


@pytest.mark.parametrize("number", StopRequest.SIGNALS)
def test_a_signal_ends_a_loop_that_holds_the_main_thread(number, capsys):
    stop = StopRequest()
    loop = counting_loop(stop).get_concrete_function()
    with stop.listening():
        timer = send_soon(number)
        start = time.monotonic()
        count = int(loop())
        seconds = time.monotonic() - start
        timer.join()
    assert 0 < count < 10**9
    assert seconds < 30
    assert stop.signal is number
    assert f"{number.name}: stops after the step" in capsys.readouterr().err


def test_a_second_signal_does_what_it_did_before():
    stop = StopRequest()
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("before"))
    try:
        with stop.listening():
            os.kill(os.getpid(), signal.SIGTERM)
            assert seen == []
            os.kill(os.getpid(), signal.SIGTERM)
            assert seen == ["before"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_handlers_are_put_back_and_nothing_is_left():
    before = {n: signal.getsignal(n) for n in StopRequest.SIGNALS}
    threads = threading.active_count()
    stop = StopRequest()
    with stop.listening():
        assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
    assert {n: signal.getsignal(n) for n in before} == before
    assert signal.set_wakeup_fd(-1) == -1
    assert threading.active_count() == threads
    assert stop.signal is None
    assert not bool(stop.flag)


def test_other_threads_may_train_too():
    """Given no main thread, when it listens, then handlers stay alone."""
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def run():
        with StopRequest().listening():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]
