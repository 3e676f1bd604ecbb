"""Figures as JSON lines, one for each row of a table."""

import dataclasses
import json
import math
import os
import sys


class RecordFile:
    """A file of JSON lines that a crash leaves with all lines written so far.

    A file that holds something is refused and not written over: figures are
    hours of work. An empty one is written to.

    Args:
        path: of the file.

    Raises:
        FileExistsError: if it holds something.
        OSError: if it cannot be written.
    """

    def __init__(self, path):
        if os.path.isfile(path) and os.path.getsize(path):
            raise FileExistsError(
                f"output {path} holds figures already; give another path, or "
                "remove it."
            )
        # Fails now and not after an hour.
        with open(path, "a", encoding="utf-8"):
            self._path = path

    def append(self, record):
        """Writes a line, to the disk itself.

        Args:
            record: a dict. Numbers that are not finite, which JSON has not,
                become null.
        """
        line = json.dumps(_finite(record), allow_nan=False)
        with open(self._path, "a", encoding="utf-8") as stream:
            stream.write(line + "\n")
            stream.flush()
            if os.path.isfile(self._path):  # And no pipe or terminal.
                os.fsync(stream.fileno())


def record_of(result, **about) -> dict:
    """Everything that there is to know of a figure.

    Args:
        result: EvaluationResult.
        **about: what was evaluated and is not in the result.

    Returns:
        A JSON-ready dict. A figure that does not exist for the unit of the
        tokens is None.
    """
    fields = dataclasses.asdict(result)
    text = fields.pop("text")
    for name in ("position_nats", "position_tokens"):
        del fields[name]
    characters = text["unit"] == "character"
    return {
        **about,
        "version": _version(),
        "split": text["split"],
        "split_tokens": text["split_tokens"],
        "documents": text["documents"],
        "unit": text["unit"],
        **fields,
        "memory": "cold at the start of each lane and document",
        "bytes": text["num_bytes"],
        "words": text["num_words"],
        "nats_per_token": result.nats_per_token,
        "bits_per_token": result.bits_per_token,
        "bits_per_character": result.bits_per_token if characters else None,
        "bits_per_byte": result.bits_per_byte,
        "perplexity": result.perplexity,
        "word_perplexity": result.word_perplexity,
        "positions": result.positions,
        "protocol": result.protocol,
    }


def _version():
    # The package stands right of this folder, which it has loaded before.
    return sys.modules["official_lrm"].__version__


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
