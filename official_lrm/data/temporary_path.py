"""Where a file is written before it gets its name."""

import uuid


def temporary_path(path) -> str:
    """A name beside `path` that no other process takes.

    Not of the process's number, which processes in containers share.

    Args:
        path: of the file, local or remote.
    """
    return f"{path}.{uuid.uuid4().hex}.tmp"
