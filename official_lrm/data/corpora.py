"""Corpora by name: bytes in splits and documents, with a fingerprint."""

import dataclasses
import difflib
import functools
import hashlib
import itertools
import typing
from collections.abc import Callable, Iterable, Iterator

from official_lrm.data import stdlib_sources, text_files, tfds_corpora
from official_lrm.data.text_source import cut_records

_PARTS = ("train", "validation", "test")
_BLOCK_BYTES = 2**20


class Piece(typing.NamedTuple):
    """A part of a split that ends where a line does.

    Attributes:
        text: bytes, at most a megabyte of whole lines; a longer line is cut
            after white space (see `text_source.cut_records`).
        starts_document: whether a document begins here.
    """

    text: bytes
    starts_document: bool


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A text in splits, read piece by piece.

    Attributes:
        name: str, the name it was loaded by.
        splits: tuple of str, those of "train", "validation" and "test" that
            there are.
        fingerprint: str, a SHA-256 in hexadecimal of the whole text and of
            how it is split. A run stores it, so that it is never resumed or
            compared on other text.
        description: str, one line for people: name, files, bytes, hash.
        read_part: function from one of `splits`, or "all", to its pieces.
    """

    name: str
    splits: tuple
    fingerprint: str
    description: str
    read_part: Callable[[str], Iterable] = dataclasses.field(
        repr=False, compare=False
    )

    @classmethod
    def from_text(cls, name, text):
        """Makes a corpus of a text in memory; see `from_blocks`.

        Args:
            name: str.
            text: bytes.
        """
        return cls.from_blocks(name, functools.partial(_blocks_of, text))

    @classmethod
    def from_blocks(cls, name, read_blocks, num_files=1):
        """Cuts a text in 90 / 5 / 5 percent of its bytes; one document.

            before: 41 bytes
            after:  train 36, validation 2, test 3

        The cuts are at floor(0.90 N) and floor(0.95 N), so the 10^8 bytes of
        enwik8 give the usual 90,000,000 / 5,000,000 / 5,000,000. Bytes are
        cut, not characters: a split may begin inside a UTF-8 character. Of a
        text below 20 bytes a split may be empty.

        Args:
            name: str.
            read_blocks: function that returns an iterator over the text,
                bytes of any length; called here, for length and hash, and
                again at each `read`.
            num_files: int, how many files the text came from.

        Returns:
            Corpus.
        """
        digest, size = hashlib.sha256(), 0
        for block in read_blocks():
            digest.update(block)
            size += len(block)
        # Integers: 0.95 * N is not exact in floating point.
        edges = [0, size * 90 // 100, size * 95 // 100, size]
        digest.update(f"\nsplits {edges[1]} {edges[2]} {size}".encode())
        fingerprint = digest.hexdigest()
        files = "file" if num_files == 1 else "files"

        def read_part(split):
            first, end = 0, size
            if split != "all":
                index = _PARTS.index(split)
                first, end = edges[index : index + 2]
            blocks = _between(read_blocks(), first, end)
            for number, text in enumerate(cut_records(blocks)):
                yield Piece(text, number == 0)

        return cls(
            name=name,
            splits=_PARTS,
            fingerprint=fingerprint,
            description=(
                f"{name}: {num_files} {files}, {size:,} bytes, "
                f"sha256 {fingerprint[:12]}"
            ),
            read_part=read_part,
        )

    def read(self, split) -> Iterator[Piece]:
        """Reads a split piece by piece, from its beginning.

        Args:
            split: "train", "validation", "test", or "all" for all that there
                are in turn (to score a file that is a test set already).

        Returns:
            Iterator of `Piece`, the first of which starts a document.

        Raises:
            ValueError: there is no such split.
        """
        if split not in (*_PARTS, "all"):
            raise ValueError(
                f"split must be one of {', '.join(_PARTS)}, all, got {split!r}"
            )
        return iter(self.read_part(split))

    def text(self, split) -> bytes:
        """Returns a whole split as one bytes object.

        Args:
            split: as for `read`.

        Raises:
            ValueError: there is no such split.
        """
        return b"".join(piece.text for piece in self.read(split))


def corpus_names():
    """Returns the names that `load_corpus` takes, as a sorted list of str."""
    return sorted(_CORPORA)


def load_corpus(name, path=None):
    """Loads a corpus.

    - "python_stdlib": the sources of the running interpreter's own library,
      about 12 MB. It needs no download, but differs between Python versions
      and builds: figures on it go with its fingerprint.
    - "text": the files that `path` names, joined as they are.
    - "enwik8", "text8", "wikitext2", "wikitext103", "books": TensorFlow
      Datasets, prepared where they are not yet, which may take minutes and a
      download; `path` is a folder with what was downloaded by hand.

    Args:
        name: str, one of `corpus_names()`.
        path: for "text" a file, a glob, a comma-separated list of these, or
            a list; `.xz` and `.gz` are decompressed. For TensorFlow Datasets
            a folder; "books" needs it. None for others.

    Returns:
        Corpus.

    Raises:
        ValueError: unknown `name`, `path` missing or not wanted, a
            directory, an empty file, a corrupt archive, or a wrong size or
            checksum.
        FileNotFoundError: a file is missing, a glob matches nothing, or the
            interpreter came without its sources.
        PermissionError: a file cannot be read.
    """
    if name not in _CORPORA:
        nearest = difflib.get_close_matches(
            str(name), corpus_names(), n=1, cutoff=0.0
        )
        raise ValueError(
            f"unknown corpus {name!r}; did you mean {nearest[0]!r}? "
            f"allowed are {', '.join(corpus_names())}"
        )
    return _CORPORA[name](path)


def _load_python_stdlib(path):
    if path is not None:
        raise ValueError(
            f"corpus 'python_stdlib' takes no path, got {path!r}; "
            f"corpus 'text' reads files"
        )
    names, text = stdlib_sources.read_stdlib_sources()
    return Corpus.from_blocks(
        "python_stdlib", functools.partial(_blocks_of, text), len(names)
    )


def _load_text(path):
    if path is None:
        raise ValueError(
            "corpus 'text' needs a path, got None; allowed are a file, a "
            "glob, a comma-separated list of these, or a list"
        )
    files = text_files.TextFiles(path)
    return Corpus.from_blocks("text", files.blocks, len(files.names))


def _load_tfds(name, path):
    dataset = tfds_corpora.open_tfds_corpus(name, path)

    def read_part(split):
        parts = dataset.splits if split == "all" else (split,)
        # Here, and not when the first piece is asked for: a split may be
        # missing.
        readers = [dataset.read(part) for part in parts]
        return itertools.starmap(Piece, itertools.chain(*readers))

    return Corpus(
        name=name,
        splits=tuple(dataset.splits),
        fingerprint=dataset.fingerprint,
        description=dataset.description,
        read_part=read_part,
    )


# name -> function from path to Corpus
_CORPORA = {
    "python_stdlib": _load_python_stdlib,
    "text": _load_text,
    **{
        name: functools.partial(_load_tfds, name)
        for name in tfds_corpora.TFDS_CORPORA
    },
}


def _blocks_of(text):
    """Yields bytes in memory in blocks of about a megabyte."""
    for start in range(0, len(text), _BLOCK_BYTES):
        yield text[start : start + _BLOCK_BYTES]


def _between(blocks, first, end):
    """Yields the bytes from `first` to `end` of a text in blocks."""
    offset = 0
    for block in blocks:
        if offset >= end:
            return
        part = block[max(first - offset, 0) : end - offset]
        offset += len(block)
        if part:
            yield part
