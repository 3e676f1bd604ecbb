"""Files that are written whole or not at all."""

import contextlib
import os
import re
import uuid

_TEMPORARY = re.compile(r".*\.[0-9a-f]{32}\.tmp")


def temporary_path(path) -> str:
    """A name beside `path` that no other process takes.

    Not of the process's number, which processes in containers share.

    Args:
        path: of the file, local or remote.
    """
    return f"{path}.{uuid.uuid4().hex}.tmp"


def is_temporary(name) -> bool:
    """Whether a file's name is one that `temporary_path` made."""
    return _TEMPORARY.fullmatch(name) is not None


@contextlib.contextmanager
def written_whole(path, gfile=None):
    """Gives a name to write a file under; it gets its own when that went well.

    What fails leaves nothing. SIGKILL leaves `PATH.*.tmp`.

    Args:
        path: of the file.
        gfile: tf.io.gfile, for a path of any file system; None = a local one.

    Yields:
        The path to write to.
    """
    temporary = temporary_path(path)
    try:
        yield temporary
        if gfile is None:
            os.replace(temporary, path)
        else:
            gfile.rename(temporary, path, overwrite=True)
    except BaseException:
        # What went wrong says more than that this does, too.
        with contextlib.suppress(Exception):
            (gfile or os).remove(temporary)
        raise
