"""Corpora by name: bytes in three splits, with a fingerprint."""

import dataclasses
import difflib
import hashlib

from official_lrm.data import stdlib_sources, text_files

_SPLITS = ("train", "validation", "test", "all")


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A text in three splits.

    Build one with `Corpus.from_text`, which does the splitting and hashing.

    Attributes:
        name: str, the name it was loaded by.
        train: bytes, the first 90% of the text.
        validation: bytes, the next 5%.
        test: bytes, the last 5%.
        fingerprint: str, the SHA-256 in hexadecimal of the whole text and of
            the two split points. A run stores it, so that it is never
            resumed or compared on other text.
        description: str, one line for people: name, files, bytes, hash.
    """

    name: str
    # Not in the repr: a traceback must not print megabytes.
    train: bytes = dataclasses.field(repr=False)
    validation: bytes = dataclasses.field(repr=False)
    test: bytes = dataclasses.field(repr=False)
    fingerprint: str
    description: str

    @classmethod
    def from_text(cls, name, text, num_files=1):
        """Cuts a text in 90 / 5 / 5 percent of its bytes.

            before: 41 bytes
            after:  train 36, validation 2, test 3

        The cuts are at floor(0.90 N) and floor(0.95 N), so the 10^8 bytes of
        enwik8 give the usual 90,000,000 / 5,000,000 / 5,000,000. Bytes are
        cut, not characters: a split may begin inside a UTF-8 character. Of a
        text below 20 bytes a split may be empty.

        Args:
            name: str.
            text: bytes.
            num_files: int, how many files the text came from.

        Returns:
            Corpus.
        """
        # Integers: 0.95 * N is not exact in floating point.
        first = len(text) * 90 // 100
        second = len(text) * 95 // 100
        digest = hashlib.sha256(text)
        digest.update(f"\nsplits {first} {second} {len(text)}".encode())
        fingerprint = digest.hexdigest()
        files = "file" if num_files == 1 else "files"
        return cls(
            name=name,
            train=text[:first],
            validation=text[first:second],
            test=text[second:],
            fingerprint=fingerprint,
            description=(
                f"{name}: {num_files} {files}, {len(text):,} bytes, "
                f"sha256 {fingerprint[:12]}"
            ),
        )

    def split(self, name):
        """Returns the bytes of one split.

        Args:
            name: "train", "validation", "test", or "all" for the whole text
                (to score a file that is a test set already).

        Returns:
            bytes.

        Raises:
            ValueError: there is no such split.
        """
        if name not in _SPLITS:
            raise ValueError(
                f"split must be one of {', '.join(_SPLITS)}, got {name!r}"
            )
        if name == "all":
            return self.train + self.validation + self.test
        return getattr(self, name)

    def encode(self, split, tokenizer):
        """Returns the token ids of one split.

        Args:
            split: as for `split`.
            tokenizer: one of this package's.

        Returns:
            uint8 [N].

        Raises:
            ValueError: there is no such split, or a byte of it is outside
                the vocabulary; it names the byte, its offset in the split
                and the split.
        """
        text = self.split(split)
        try:
            return tokenizer.encode(text)
        except ValueError as error:
            raise ValueError(
                f"{split} split of corpus {self.name!r}: {error}"
            ) from None


def corpus_names():
    """Returns the names that `load_corpus` takes, as a sorted list of str."""
    return sorted(_CORPORA)


def load_corpus(name, path=None):
    """Loads a corpus.

    - "python_stdlib": the sources of the running interpreter's own library,
      about 12 MB. It needs no download, but differs between Python versions
      and builds: figures on it go with its fingerprint.
    - "text": the files that `path` names, joined as they are.

    Args:
        name: str, one of `corpus_names()`.
        path: for "text" a file, a glob, a comma-separated list of these, or
            a list; `.xz` and `.gz` are decompressed. None for others.

    Returns:
        Corpus.

    Raises:
        ValueError: unknown `name`, `path` missing or not wanted, a
            directory, an empty file, or a corrupt archive.
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
    names, text = _CORPORA[name](path)
    return Corpus.from_text(name, text, num_files=len(names))


def _load_python_stdlib(path):
    if path is not None:
        raise ValueError(
            f"corpus 'python_stdlib' takes no path, got {path!r}; "
            f"corpus 'text' reads files"
        )
    return stdlib_sources.read_stdlib_sources()


def _load_text(path):
    if path is None:
        raise ValueError(
            "corpus 'text' needs a path, got None; allowed are a file, a "
            "glob, a comma-separated list of these, or a list"
        )
    return text_files.read_text_files(path)


# name -> function from path to (names of the files, their joined bytes)
_CORPORA = {
    "python_stdlib": _load_python_stdlib,
    "text": _load_text,
}
