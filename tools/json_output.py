"""Figures as JSON, for tools that take --output."""

import json
import os


def check_output(path, flag="--output"):
    """Refuses a file that cannot be written, before the work begins.

    Args:
        path: of the file, or None.
        flag: that gave it.

    Raises:
        ValueError: naming the flag and what stands in the way.
    """
    folder = os.path.dirname(path or "") or "."
    if not os.path.isdir(folder):
        raise ValueError(f"{flag}: there is no folder {folder}.")
    if path and os.path.isdir(path):
        raise ValueError(f"{flag} must be a file; {path} is a folder.")
    if path and not os.access(folder, os.W_OK):
        raise ValueError(f"{flag}: {folder} cannot be written to.")


def write_output(path, figures):
    """Writes all figures so far; called after each one, it loses none.

    Args:
        path: `--output`, or None to write nothing.
        figures: what JSON can hold.
    """
    if path:
        incomplete = f"{path}.incomplete"
        with open(incomplete, "w", encoding="utf-8") as stream:
            json.dump(figures, stream, indent=2)
            stream.write("\n")
        os.replace(incomplete, path)
