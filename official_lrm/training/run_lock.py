"""One training run at a time in a model_dir."""

import contextlib
import fcntl
import os
import socket

from absl import logging

from official_lrm.training.run_files import writing

LOCK_FILE = "train.lock"


@contextlib.contextmanager
def run_lock(model_dir):
    """Holds a model_dir for training while the block runs.

    The lock is the kernel's (`flock`) and ends with the process however that
    ends; evaluations beside a run do not take it. A remote folder (`gs://…`)
    knows no locks: none is held there.

    Args:
        model_dir: the folder; made if missing.

    Raises:
        ValueError: if another process trains in it.
        UnwritableError: if it cannot be written.
    """
    if "://" in model_dir:
        logging.warning(
            "%s is remote and cannot be locked: nothing keeps a second "
            "training out of it.",
            model_dir,
        )
        yield
        return
    path = os.path.join(model_dir, LOCK_FILE)
    with writing(model_dir):
        os.makedirs(model_dir, exist_ok=True)
        stream = _take(path)
    holder = f"process {os.getpid()} on {socket.gethostname()}\n"
    with stream:
        try:
            with writing(model_dir):  # Unbuffered: closing it cannot fail.
                os.write(stream.fileno(), holder.encode())
            yield
        finally:
            # While it is held: who waits for this file finds it gone.
            with contextlib.suppress(OSError):
                os.remove(path)


def _take(path):
    while True:
        # Not truncated before it is ours: it says whose it is.
        stream = open(path, "a+")  # noqa: SIM115
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(stream.fileno()).st_ino == os.stat(path).st_ino:
                stream.truncate(0)
                return stream
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read().strip() or "another process"
            stream.close()
            raise ValueError(
                f"{os.path.dirname(path)} is being trained by {holder}: give "
                "another --model_dir, or wait for its end."
            ) from None
        except FileNotFoundError:
            pass  # Its last holder removed it just now.
        stream.close()
