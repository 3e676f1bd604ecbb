"""Books: a folder of texts, each a document of its own."""

import dataclasses
import pathlib
import re

import tensorflow_datasets as tfds
from absl import logging

from official_lrm.data.builders.text_builder import (
    SPLITS,
    Document,
    TextBuilder,
)
from official_lrm.data.text_source import TextSource

_ALLOWED = (
    "folders train, validation and test of .txt files, or at least three "
    ".txt files (also .txt.xz, .txt.gz)"
)
_START = re.compile(rb"\*\*\* ?START OF")
_END = re.compile(rb"\*\*\* ?END OF")


class LrmBooks(TextBuilder):
    """Books in plain text, one file one document.

    The folder holds `train`, `validation` and `test` (PG-19's layout; those
    that are there are the splits), or the files themselves. Then they are
    sorted by name: the last 5 percent of the files, at least one, are the
    test split, and as many before them the validation split.

    Empty files are passed over with a warning. The configuration `plain`
    keeps every byte. `gutenberg` is for files as Project Gutenberg serves
    them: it keeps what stands between the lines `*** START OF ...` and
    `*** END OF ...`, if both are there, and turns CR LF into LF; PG-19's own
    files have been through that.
    """

    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="plain", description="Every byte."),
        tfds.core.BuilderConfig(
            name="gutenberg",
            description="Without Project Gutenberg's header and licence, LF.",
        ),
    ]
    DESCRIPTION = "Books in plain text, each a document: PG-19, or your own."
    HOMEPAGE = "https://github.com/google-deepmind/pg19"
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"A folder with {_ALLOWED}. PG-19 (11 GB) has no archive; copy it "
        "with: gsutil -m rsync -r gs://deepmind-gutenberg <folder>"
    )

    @classmethod
    def find_files(cls, folder):
        """Finds the books of each split.

        Returns:
            dict from split to a list of pathlib.Path, sorted by name.

        Raises:
            FileNotFoundError: there is no such folder, or no book in it.
            ValueError: books lie both beside and in the splits' folders, a
                book is there twice, plain and compressed, or there are too
                few to split.
        """
        folder = pathlib.Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"'{folder}' is no folder; allowed is one that holds {_ALLOWED}"
            )
        beside = _books(folder)
        found = {
            split: _books(folder / split)
            for split in SPLITS
            if (folder / split).is_dir()
        }
        found = {split: paths for split, paths in found.items() if paths}
        if beside and found:
            raise ValueError(
                f"'{folder}' has books and folders of splits with books; "
                f"allowed are {_ALLOWED}"
            )
        if found:
            return found
        if not beside:
            raise FileNotFoundError(
                f"'{folder}' has no book; put there {_ALLOWED}"
            )
        held_out = max(1, (len(beside) * 5 + 50) // 100)
        if len(beside) < 3:
            raise ValueError(
                f"'{folder}' has {len(beside)} books, too few to split; "
                f"allowed are {_ALLOWED}"
            )
        return {
            "train": beside[: -2 * held_out],
            "validation": beside[-2 * held_out : -held_out],
            "test": beside[-held_out:],
        }

    def _read_layout(self, files):
        gutenberg = self.builder_config.name == "gutenberg"
        layout, unmarked = {}, []
        for split in SPLITS:
            documents = []
            for path in files.get(split, ()):
                source = TextSource(path)
                if gutenberg:
                    source, marked = _between_markers(source)
                    if not marked:
                        unmarked.append(path)
                if path.suffix == ".txt" and not gutenberg:
                    num_bytes = path.stat().st_size
                else:
                    num_bytes = sum(len(block) for block in source.blocks())
                if num_bytes:
                    documents.append(Document(source, num_bytes))
                else:
                    logging.warning("'%s' is empty; passed over.", path)
            if documents:
                layout[split] = documents
        if not layout:
            folder = next(iter(files.values()))[0].parent
            raise ValueError(f"all books in '{folder}' are empty")
        if unmarked:
            logging.warning(
                "%d books have no '*** START OF' or no '*** END OF' and are "
                "kept whole, '%s' the first.",
                len(unmarked),
                unmarked[0],
            )
        missing = {
            split: f"{split}/*.txt" for split in SPLITS if split not in layout
        }
        return layout, missing


def _books(folder):
    """Returns the books in a folder, sorted by name without compression."""
    found = {}
    for path in folder.iterdir():
        name = path.name
        for suffix in (".xz", ".gz"):
            name = name.removesuffix(suffix)
        if name.endswith(".txt") and path.is_file():
            if name in found:
                raise ValueError(
                    f"'{folder}' has {name} twice, as {found[name].name} and "
                    f"as {path.name}; allowed is each book once"
                )
            found[name] = path
    return [found[name] for name in sorted(found)]


def _between_markers(source):
    """Returns what Project Gutenberg did not add, and whether that is known.

    Args:
        source: TextSource of a whole file.

    Returns:
        `(source, marked)`: TextSource with LF line ends, and bool.
    """
    source = dataclasses.replace(source, newlines=True)
    offset, start, stop, in_marker = 0, None, None, False
    for line in source.lines():
        if start is None and _START.match(line):
            in_marker = True
        elif start is not None and _END.match(line):
            stop = offset
        offset += len(line)
        # A long title continues the marker on the next line.
        if in_marker and line.rstrip().endswith(b"***"):
            start, in_marker = offset, False
    if start is None or stop is None:
        return source, False
    return dataclasses.replace(source, start=start, stop=stop), True
