"""Splits as token ids on disk, tokenized once.

A cache folder holds, by the hash of what decides it, a folder for each split
with `tokens.bin` (little-endian ids), `document_starts.bin` (int64) and
`about.json`, and a JSON file for each tokenizer that was learnt. A folder
appears under its name only when it is complete; anything in the cache may be
deleted at any time.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import shutil
import uuid

import numpy as np

from official_lrm.data.byte_tokenizer import ByteTokenizer
from official_lrm.data.sentencepiece_tokenizer import SentencePieceTokenizer
from official_lrm.data.symbol_tokenizer import SymbolTokenizer
from official_lrm.data.tokenizers import tokenizer_from_config
from official_lrm.data.whole_files import written_whole
from official_lrm.data.word_tokenizer import WordTokenizer
from official_lrm.progress import ProgressLine

_FORMAT = 1
_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TokenizedSplit:
    """The token ids of a split.

    Attributes:
        tokens: uint8, uint16 or int32 [N], memory-mapped.
        document_starts: int64 [D], the first token of each document.
    """

    tokens: np.ndarray = dataclasses.field(repr=False)
    document_starts: np.ndarray = dataclasses.field(repr=False)

    def first_targets(self, count) -> "TokenizedSplit":
        """Returns the beginning of the split.

        Args:
            count: int, targets at most, which is one fewer than tokens;
                None = all.

        Returns:
            TokenizedSplit.
        """
        if count is None:
            return self
        tokens = self.tokens[: count + 1]
        starts = self.document_starts
        return dataclasses.replace(
            self,
            tokens=tokens,
            document_starts=starts[starts < len(tokens)],
        )


def default_cache_dir() -> str:
    """`official_lrm` in the user's cache folder (XDG_CACHE_HOME)."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(
        os.path.expanduser("~"), ".cache"
    )
    return os.path.join(home, "official_lrm")


def tokenize_split(corpus, split, tokenizer, cache_dir=None) -> TokenizedSplit:
    """Returns the token ids of a split, from the cache if they are there.

    The text is read piece by piece, and the ids stay in their file.

    Args:
        corpus: Corpus.
        split: one of its splits, or "all".
        tokenizer: one of this package's.
        cache_dir: folder of the cache; None = `default_cache_dir()`.

    Returns:
        TokenizedSplit.

    Raises:
        ValueError: there is no such split, or it holds what the tokenizer has
            no id for; then naming it and its place.
        OSError: the cache cannot be written.
    """
    pieces = corpus.read(split)  # First: an unknown split is refused.
    folder = _place(
        cache_dir,
        f"{corpus.name}-{split}",
        corpus=corpus.fingerprint,
        split=split,
        tokenizer=tokenizer.get_config(),
    )
    cached = _open(folder)
    if cached is None:
        name = f"{split} split of corpus {corpus.name!r}"
        with _cache_errors(folder), _made_aside(folder) as aside:
            _write(aside, pieces, tokenizer, name)
            # What is mapped stays, whatever others do to the folder.
            cached = _open(aside)
    return cached


def learn_tokenizer(
    kind, corpus, split, vocab_size, skip_newlines=False, cache_dir=None
):
    """Returns a tokenizer made for a split, from the cache if it is there.

    Args:
        kind: one of TOKENIZER_TYPES.
        corpus: Corpus.
        split: what is learnt from.
        vocab_size: int, the most ids of words and pieces.
        skip_newlines: of symbols.
        cache_dir: folder of the cache; None = `default_cache_dir()`.

    Raises:
        ValueError: naming what does not go together.
        OSError: the cache cannot be written.
    """
    if kind == "bytes":  # There is nothing to learn.
        return ByteTokenizer(vocab_size)
    pieces = corpus.read(split)
    path = _place(
        cache_dir,
        f"{corpus.name}-{split}-{kind}",
        corpus=corpus.fingerprint,
        split=split,
        kind=kind,
        vocab_size=vocab_size,
        skip_newlines=skip_newlines,
    )
    path += ".json"
    with contextlib.suppress(OSError, ValueError), open(path) as stream:
        return tokenizer_from_config(json.load(stream))
    texts = (piece.text for piece in pieces)
    if kind == "symbols":
        tokenizer = SymbolTokenizer.learn(texts, skip_newlines)
    elif kind == "words":
        tokenizer = WordTokenizer.learn(texts, max_size=vocab_size)
    else:
        tokenizer = SentencePieceTokenizer.learn(texts, vocab_size)
    with _cache_errors(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with written_whole(path) as temporary, open(temporary, "w") as stream:
            json.dump(tokenizer.get_config(), stream)
    return tokenizer


@contextlib.contextmanager
def _cache_errors(path):
    try:
        yield
    except OSError as error:
        # Of the text, if it names another file.
        if error.filename is None or str(error.filename).startswith(
            os.path.dirname(path)
        ):
            raise OSError(
                f"the cache {os.path.dirname(path)} cannot be written "
                f"({error.strerror or error}); task.corpus.cache_dir names "
                "another folder"
            ) from error
        raise


def _place(cache_dir, name, **decides):
    text = json.dumps({"format": _FORMAT, **decides}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    folder = cache_dir or default_cache_dir()
    return os.path.join(folder, f"{name}-{digest[:24]}")


@contextlib.contextmanager
def _made_aside(folder):
    """Gives a folder to write in, which gets its name when all went well."""
    parent = os.path.dirname(folder)
    os.makedirs(parent, exist_ok=True)
    # Not of tempfile, whose folders other users cannot read.
    aside = os.path.join(parent, f".incomplete-{uuid.uuid4().hex}")
    os.mkdir(aside)
    try:
        yield aside
        _give_name(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _give_name(aside, folder):
    """Renames a folder, unless another process was faster."""
    while True:
        try:
            os.rename(aside, folder)
            return
        except OSError:
            if not os.path.lexists(folder):
                raise
        if _open(folder) is not None:
            return
        # It is damaged, and goes in one step: nobody takes a whole one, made
        # in between, for what is left of it.
        damaged = f"{aside}.damaged"
        with contextlib.suppress(FileNotFoundError):
            os.rename(folder, damaged)
        shutil.rmtree(damaged, ignore_errors=True)


def _write(folder, pieces, tokenizer, name):
    dtype = tokenizer.id_dtype
    starts, num_tokens, num_bytes = [], 0, 0
    progress = ProgressLine(f"tokenize {name}, MB")
    with open(os.path.join(folder, "tokens.bin"), "wb") as stream:
        for text, starts_document in pieces:
            try:
                ids = tokenizer.encode(text)
            except ValueError as error:
                place = f"from byte {num_bytes:,} on, " if num_bytes else ""
                raise ValueError(f"{name}: {place}{error}") from None
            if starts_document:
                starts.append(num_tokens)
            stream.write(ids.astype(dtype.newbyteorder("<")).tobytes())
            num_tokens += len(ids)
            num_bytes += len(text)
            progress.update(num_bytes // 10**6)
        # What gets its name must outlive a power cut.
        stream.flush()
        os.fsync(stream.fileno())
    progress.close()
    # A document without tokens starts where the next one does, or nowhere.
    starts = np.unique(np.array(starts, "<i8"))
    starts = starts[starts < num_tokens]
    starts.tofile(os.path.join(folder, "document_starts.bin"))
    about = {
        "dtype": dtype.name,
        "tokens": num_tokens,
        "documents": len(starts),
    }
    with open(os.path.join(folder, "about.json"), "w") as stream:
        json.dump(about, stream)


def _open(folder):
    """Reads a finished folder; None if there is none that is whole."""
    try:
        with open(os.path.join(folder, "about.json")) as stream:
            about = json.load(stream)
        tokens, starts = (
            _map(os.path.join(folder, name), np.dtype(dtype), size)
            for name, dtype, size in (
                ("tokens.bin", about["dtype"], about["tokens"]),
                ("document_starts.bin", np.int64, about["documents"]),
            )
        )
        edges = [-1, *starts.tolist(), len(tokens)]
        if sorted(set(edges)) != edges or (len(tokens) and edges[1] != 0):
            raise ValueError("document_starts.bin is not in ascending order")
        return TokenizedSplit(tokens, np.array(starts))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        _LOGGER.warning("%s is damaged and made again: %s", folder, error)
        return None


def _map(path, dtype, size):
    """Maps a file of `size` values, which must be its length."""
    if os.path.getsize(path) != size * dtype.itemsize:
        raise ValueError(
            f"{os.path.basename(path)} must have {size * dtype.itemsize} "
            f"bytes; it has {os.path.getsize(path)}"
        )
    if not size:  # What cannot be mapped.
        return np.zeros(0, dtype)
    return np.memmap(path, dtype.newbyteorder("<"), mode="r")
