"""What the text builders share: records, shards, fingerprint."""

import abc
import dataclasses
import hashlib

import numpy as np
import tensorflow_datasets as tfds

from official_lrm.data.text_source import TextSource, cut_records
from official_lrm.progress import ProgressLine

SPLITS = ("train", "validation", "test")
# The writer holds a shard in memory: TFDS counts its examples after writing.
SHARD_BYTES = 2**25


@dataclasses.dataclass(frozen=True)
class Document:
    """A document and its length.

    Attributes:
        source: TextSource.
        num_bytes: int, length of the text that the source yields.
    """

    source: TextSource
    num_bytes: int


class TextBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Base of the builders that keep text in order, byte by byte.

    An example is a record of a document: `text` (its bytes, not necessarily
    UTF-8) and `document` (index of its document in the split). Records and
    shards are in the order of the text; joined, they are the text. TFDS's
    own writer for ordered datasets keeps up to a gigabyte in memory, so the
    shards are planned here, of 32 MiB each.

    The metadata hold `fingerprint`, the SHA-256 over all splits' names,
    lengths and bytes; `splits` with the `bytes`, `documents` and `sha256` of
    each; and `missing`, a dict from a split that is not there to the file
    that it would need.

    Files are read from a local folder, never from a cloud bucket. As with
    every builder, `tfds.load` serves what lies prepared in `data_dir`, even
    for another `manual_dir`; `tfds_corpora.open_tfds_corpus` does not.
    """

    # checksums.tsv lies beside it. TFDS 4.9.10 would find the path with
    # importlib_resources, which it does not install on Python 3.11.
    code_path = tfds.core.Path(__file__)
    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION = ""
    HOMEPAGE = None
    CITATION = None

    @classmethod
    @abc.abstractmethod
    def find_files(cls, folder):
        """Finds the files of this corpus in a folder.

        Args:
            folder: str or os.PathLike.

        Returns:
            dict from str (an archive's name, a file's or a split) to a list
            of pathlib.Path.

        Raises:
            FileNotFoundError: there is no such folder, or nothing in it is
                of this corpus.
            ValueError: the files contradict one another.
        """

    @abc.abstractmethod
    def _read_layout(self, files):
        """Checks the files and says what the splits consist of.

        Args:
            files: as `find_files` returns them.

        Returns:
            `(splits, missing)`: dict from split to list of Document, and
            dict from split to the file that it would need.
        """

    def _get_files(self, dl_manager):
        """Returns files as `find_files` does, downloaded if need be."""
        return self.find_files(manual_folder(dl_manager))

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "text": tfds.features.Text(),
                    "document": tfds.features.Scalar(dtype=np.int64),
                }
            ),
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _shard_iterators_per_split(self, dl_manager):
        layout, missing = self._read_layout(self._get_files(dl_manager))
        total = sum(d.num_bytes for split in layout.values() for d in split)
        progress = ProgressLine(f"{self.name}, MB", -(-total // 10**6))
        self._splits, self._progress, before = {}, progress, 0
        for name in SPLITS:
            if name in layout:
                split = _Split(layout[name], progress, before)
                self._splits[name] = split
                before += split.num_bytes
        self._missing = missing
        return {name: split.shards() for name, split in self._splits.items()}

    def _download_and_prepare(self, dl_manager, download_config=None):
        super()._download_and_prepare(dl_manager, download_config)
        self._progress.close()
        splits = {name: split.summary() for name, split in self._splits.items()}
        self.info.metadata.update(
            fingerprint=fingerprint_of(splits),
            splits=splits,
            missing=self._missing,
        )


class _Split:
    """Generates the examples of one split, shard by shard, and hashes them.

    Args:
        documents: list of Document.
        progress: ProgressLine in megabytes.
        before: int, bytes of the splits before this one.
    """

    def __init__(self, documents, progress, before):
        self._documents = documents
        self._progress = progress
        self._before = before
        self.num_bytes = sum(d.num_bytes for d in documents)
        self._num_shards = max(1, -(-self.num_bytes // SHARD_BYTES))
        self._done = 0
        self._text_hash = hashlib.sha256()
        self._lengths_hash = hashlib.sha256()
        self._examples = self._generate()

    def shards(self):
        """Returns one function for each shard that generates its examples.

        They must be called in order, each once.
        """
        return [
            lambda index=index: self._shard(index)
            for index in range(self._num_shards)
        ]

    def summary(self):
        """Returns what the metadata say of the split that was generated."""
        return {
            "bytes": self._done,
            "documents": len(self._documents),
            "sha256": self._text_hash.hexdigest(),
            "lengths_sha256": self._lengths_hash.hexdigest(),
        }

    def _shard(self, index):
        last = index == self._num_shards - 1
        stop = self.num_bytes * (index + 1) // self._num_shards
        while last or self._done < stop:
            example = next(self._examples, None)
            if example is None:
                return
            yield example

    def _generate(self):
        key = 0
        for index, document in enumerate(self._documents):
            num_bytes = 0
            for record in cut_records(document.source.blocks()):
                num_bytes += len(record)
                self._done += len(record)
                self._text_hash.update(record)
                yield key, {"text": record, "document": index}
                key += 1
                self._progress.update((self._before + self._done) // 10**6)
            # A longer file than planned could leave a shard empty.
            if num_bytes != document.num_bytes:
                raise ValueError(
                    f"'{document.source.path}' changed while it was read: "
                    f"{document.num_bytes:,} bytes, then {num_bytes:,}"
                )
            self._lengths_hash.update(f"{num_bytes}\n".encode())


def fingerprint_of(splits):
    """Returns the SHA-256 of a dataset's content.

        before: {"test": {"bytes": 3, "documents": 1, "sha256": "ba78...",
                          "lengths_sha256": "1121..."}}
        after:  the hash of "test 3 1 ba78... 1121...\\n"

    Args:
        splits: dict from split to a dict as the metadata hold it.

    Returns:
        str, hexadecimal.
    """
    digest = hashlib.sha256()
    for name in SPLITS:
        if name in splits:
            split = splits[name]
            digest.update(
                f"{name} {split['bytes']} {split['documents']} "
                f"{split['sha256']} {split['lengths_sha256']}\n".encode()
            )
    return digest.hexdigest()


def manual_folder(dl_manager):
    """Returns TFDS's folder of manually downloaded files.

    Args:
        dl_manager: tfds.download.DownloadManager.

    Returns:
        path-like.

    Raises:
        FileNotFoundError: it is missing or empty.
    """
    try:
        return dl_manager.manual_dir
    except AssertionError as error:
        raise FileNotFoundError(" ".join(str(error).split())) from error
