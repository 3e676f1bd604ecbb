"""One training run at a time in a model_dir."""

import os
import signal
import subprocess
import sys
import time

import pytest

from official_lrm.training.run_lock import LOCK_FILE, run_lock

_HOLDER = """
import sys, time
from official_lrm.training.run_lock import run_lock
with run_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_run_is_refused_in_one_line(tmp_path, holder):
    with (
        pytest.raises(ValueError, match="is being trained by") as error,
        run_lock(str(tmp_path)),
    ):
        pass
    assert f"process {holder.pid} on " in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_sigkill_leaves_no_lock(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK_FILE).exists()

    with run_lock(str(tmp_path)):
        assert str(os.getpid()) in (tmp_path / LOCK_FILE).read_text()


def test_nothing_is_left_of_it(tmp_path):
    folder = tmp_path / "new" / "run"
    with run_lock(str(folder)):
        assert os.listdir(folder) == [LOCK_FILE]
    assert os.listdir(folder) == []
    with pytest.raises(RuntimeError, match="crash"), run_lock(str(folder)):
        raise RuntimeError("crash")
    with run_lock(str(folder)):
        pass


def test_a_file_that_its_holder_removed_is_not_taken(tmp_path, monkeypatch):
    """Given that a lock's holder removes the file between our opening and our
    locking it, when we lock it, then we take a new one, which others see."""
    import fcntl

    real, removed = fcntl.flock, []

    def flock(stream, operation):
        if not removed:
            removed.append(True)
            os.remove(tmp_path / LOCK_FILE)
        real(stream, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with run_lock(str(tmp_path)):
        assert (tmp_path / LOCK_FILE).exists()
        with (
            pytest.raises(ValueError, match="being trained"),
            run_lock(str(tmp_path)),
        ):
            pass


@pytest.mark.parametrize("folder", ["file", "file/run"])
def test_what_is_no_folder_is_one_line(tmp_path, folder):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ValueError, match="cannot be written") as error,
        run_lock(str(tmp_path / folder)),
    ):
        pass
    assert "\n" not in str(error.value)


def test_a_full_disk_is_one_line_and_leaves_no_lock(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(ValueError) as error, run_lock(str(tmp_path)):
        pass
    assert str(error.value) == (
        f"{tmp_path} cannot be written: No space left on device."
    )
    assert os.listdir(tmp_path) == []


def test_a_remote_folder_is_not_locked_and_says_so(caplog):
    with run_lock("gs://bucket/run"):
        time.sleep(0)
    assert "cannot be locked" in caplog.text
