"""Corpora that come as one archive, or as the files that were in it."""

import dataclasses
import hashlib
import pathlib
import zipfile

import requests
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core.download import download_manager

from official_lrm.data.builders.text_builder import (
    SPLITS,
    Document,
    TextBuilder,
    manual_folder,
)
from official_lrm.data.text_source import TextSource, count_words_and_lines

_SUFFIXES = ("", ".xz", ".gz")
_TIMEOUT_SECONDS = 20


@dataclasses.dataclass(frozen=True)
class ExpectedFile:
    """A file of an archive, and how to recognise a copy of it.

    Attributes:
        name: str, its name in the archive without folders.
        parts: dict from split to the offsets `(start, stop)` of its bytes;
            `(0, None)` is the whole file.
        num_bytes: int, its length.
        algorithm: "md5" or "sha1", the hash that is published of it.
        digest: str, that hash in hexadecimal.
        aliases: tuple of str, paths in a folder under which it is found, too;
            looked for before `name`.
        num_tokens: int, words and line ends. Where it is given, a file of
            the right length and number of tokens is taken with a warning
            though its hash differs: copies with the articles in another
            order are about. None where only the hash will do.
    """

    name: str
    parts: dict
    num_bytes: int
    algorithm: str
    digest: str
    aliases: tuple = ()
    num_tokens: int | None = None


class ArchiveBuilder(TextBuilder, skip_registration=True):
    """Base of the builders of one downloadable zip archive.

    The archive is taken from `manual_dir` or downloaded, and checked by its
    SHA-256 in checksums.tsv. `manual_dir` may hold the extracted files
    instead, `.xz` and `.gz` among them: they are checked by length and hash,
    and those that are there decide which splits the dataset has.
    """

    URL = ""
    FILES: tuple[ExpectedFile, ...] = ()

    @classmethod
    def find_files(cls, folder):
        """Finds the archive, or else the extracted files.

        Returns:
            `{archive name: [path]}`, or a dict from ExpectedFile.name to
            [path] for those that are there.

        Raises:
            FileNotFoundError: there is no such folder, or neither in it.
        """
        folder = pathlib.Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"'{folder}' is no folder; allowed is one that holds "
                f"{cls._allowed()}"
            )
        archive = folder / cls._archive_name()
        if archive.is_file():
            return {archive.name: [archive]}
        found = {}
        for expected in cls.FILES:
            for name in (*expected.aliases, expected.name):
                paths = [folder / (name + suffix) for suffix in _SUFFIXES]
                paths = [path for path in paths if path.is_file()]
                if paths:
                    found.setdefault(expected.name, paths[:1])
        if not found:
            raise FileNotFoundError(
                f"'{folder}' has no file of {cls.name}; put there "
                f"{cls._allowed()}"
            )
        return found

    @classmethod
    def _archive_name(cls):
        return cls.URL.rpartition("/")[2]

    @classmethod
    def _allowed(cls):
        names = ", ".join(expected.name for expected in cls.FILES)
        return f"{cls._archive_name()}, or {names} (also as .xz or .gz)"

    def _get_files(self, dl_manager):
        try:
            return self.find_files(manual_folder(dl_manager))
        except FileNotFoundError:
            pass
        try:
            # TFDS tries again for minutes where there is no network.
            requests.head(self.URL, timeout=_TIMEOUT_SECONDS)
            path = dl_manager.download(self.URL)
        except (
            OSError,
            tfds.download.DownloadError,
            download_manager.NonMatchingChecksumError,
        ) as error:
            reason = " ".join(str(error).split())
            raise ConnectionError(
                f"{self.name}: cannot download {self.URL}; put "
                f"{self._allowed()} into a folder and give it as path, in TFDS "
                f"as manual_dir; the reason was: {reason}"
            ) from error
        return {self._archive_name(): [pathlib.Path(path)]}

    def _read_layout(self, files):
        archive = files.get(self._archive_name())
        layout, missing = {}, {}
        if archive is not None:
            sources = self._open_archive(archive[0])
        else:
            sources = {
                expected.name: self._check_file(expected, *files[expected.name])
                for expected in self.FILES
                if expected.name in files
            }
        for expected in self.FILES:
            for split, (start, stop) in expected.parts.items():
                if expected.name not in sources:
                    missing[split] = expected.name
                    continue
                source, num_bytes = sources[expected.name]
                source = dataclasses.replace(source, start=start, stop=stop)
                stop = num_bytes if stop is None else stop
                layout[split] = [Document(source, stop - start)]
        return {
            name: layout[name] for name in SPLITS if name in layout
        }, missing

    def _open_archive(self, path):
        """Returns a dict from ExpectedFile.name to (source, bytes)."""
        expected = self.url_infos[self.URL]
        num_bytes, digest = _measure(TextSource(path), "sha256")
        if num_bytes != expected.size:
            raise ValueError(
                f"'{path}' has {num_bytes:,} bytes; {self._archive_name()} "
                f"has {int(expected.size):,}"
            )
        if digest != expected.checksum:
            raise ValueError(
                f"'{path}' has SHA-256 {digest}; {self._archive_name()} has "
                f"{expected.checksum}"
            )
        sources = {}
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.rpartition("/")[2]
                sources[name] = (
                    TextSource(path, member=member.filename),
                    member.file_size,
                )
        return sources

    def _check_file(self, expected, path):
        """Returns (source, bytes) of a file that is the expected one."""
        source = TextSource(path)
        num_bytes, digest = _measure(source, expected.algorithm)
        if num_bytes != expected.num_bytes:
            raise ValueError(
                f"'{path}' has {num_bytes:,} bytes of text; {expected.name} "
                f"of {self.name} has {expected.num_bytes:,}"
            )
        if digest == expected.digest:
            return source, num_bytes
        algorithm = expected.algorithm.upper()
        difference = (
            f"'{path}' has {algorithm} {digest}; {expected.name} of "
            f"{self.name} has {expected.digest}"
        )
        if expected.num_tokens is None:
            raise ValueError(difference)
        num_tokens = count_words_and_lines(source.blocks())
        if num_tokens != expected.num_tokens:
            raise ValueError(
                f"{difference}; it has {num_tokens:,} words and line ends "
                f"instead of {expected.num_tokens:,}"
            )
        logging.warning(
            "%s: its length and its %s tokens are right, so it may be a copy "
            "with the articles in another order.",
            difference,
            f"{num_tokens:,}",
        )
        return source, num_bytes


def _measure(source, algorithm):
    """Returns the length and the hash of a text."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    num_bytes = 0
    for block in source.blocks():
        digest.update(block)
        num_bytes += len(block)
    return num_bytes, digest.hexdigest()
