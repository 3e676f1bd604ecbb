"""The corpora that TensorFlow Datasets prepares, read as streams of bytes."""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import sys

TFDS_CORPORA = ("enwik8", "text8", "wikitext103", "wikitext2", "books")

_BUILDERS = {
    "enwik8": "LrmEnwik8",
    "text8": "LrmText8",
    "wikitext103": "LrmWikitext103",
    "wikitext2": "LrmWikitext2",
    "books": "LrmBooks",
}


@dataclasses.dataclass(frozen=True)
class TfdsCorpus:
    """A prepared corpus; `open_tfds_corpus` makes one.

    Attributes:
        name: str, one of `TFDS_CORPORA`.
        splits: tuple of str, those of "train", "validation" and "test" that
            there are.
        fingerprint: str, the SHA-256 in hexadecimal of all splits: names,
            lengths of their documents, bytes. It does not depend on where
            the text came from.
        description: str, one line: name, bytes of the splits, hash.
        missing: dict from a split that is not there to the file it needs.
        data_dir: str, where the prepared data lie.
    """

    name: str
    splits: tuple
    fingerprint: str
    description: str
    missing: dict
    data_dir: str
    _builder: object = dataclasses.field(repr=False, compare=False)

    def read(self, split):
        """Reads a split in order, a record at a time.

        Args:
            split: str, one of `splits`.

        Returns:
            Iterator over `(text, starts_document)`: bytes, up to a megabyte
            of whole lines (see `text_source.cut_records`), and bool.

        Raises:
            ValueError: there is no such split; it names the missing file.
        """
        if split not in self.splits:
            reason = ""
            if split in self.missing:
                reason = f", for it was prepared without {self.missing[split]}"
            raise ValueError(
                f"corpus {self.name!r} has no split {split!r}{reason}; "
                f"allowed are {', '.join(self.splits)}"
            )
        return self._records(split)

    def _records(self, split):
        import tensorflow_datasets as tfds

        config = tfds.ReadConfig(
            try_autocache=False, interleave_cycle_length=1, skip_prefetch=True
        )
        examples = self._builder.as_dataset(split=split, read_config=config)
        last = None
        for example in tfds.as_numpy(examples):
            document = int(example["document"])
            yield bytes(example["text"]), document != last
            last = document


def open_tfds_corpus(name, path=None, data_dir=None, config=None):
    """Opens a corpus, preparing it first where that has not been done.

    With `path` the text comes from that folder, and is kept apart by the
    names, lengths and times of the files in it: changed files are prepared
    anew, beside the old ones, which stay until somebody deletes them under
    `<data_dir>/lrm_from_files`. Without `path` it comes from TFDS's own folder
    for manual downloads, `<data_dir>/downloads/manual`, or else from the
    network ("books" has no archive to download).

    Several processes may prepare the same corpus at once.

    Args:
        name: str, one of `TFDS_CORPORA`.
        path: str or os.PathLike, a local folder with the archive or with the
            extracted files, or None.
        data_dir: str or os.PathLike, where TFDS keeps its data; None for its
            default, ~/tensorflow_datasets or $TFDS_DATA_DIR.
        config: str or None; "gutenberg" for "books" leaves out what Project
            Gutenberg adds to a book.

    Returns:
        TfdsCorpus.

    Raises:
        ConnectionError: nothing is there and the network does not give it.
        FileNotFoundError: `path` is no folder or has no file of the corpus.
        ValueError: unknown `name` or `config`, or a file that is not what it
            should be: it names the file, what it has and what it must have.
    """
    if name not in TFDS_CORPORA:
        raise ValueError(
            f"unknown corpus {name!r}; allowed are {', '.join(TFDS_CORPORA)}"
        )
    import tensorflow_datasets as tfds

    from official_lrm.data import builders

    builder_class = getattr(builders, _BUILDERS[name])
    configs = [known.name for known in builder_class.BUILDER_CONFIGS]
    if config is not None and config not in configs:
        allowed = ", ".join(repr(known) for known in configs) or "only None"
        raise ValueError(
            f"config of corpus {name!r} must be {allowed}, got {config!r}"
        )
    if data_dir is None:
        data_dir = tfds.core.constants.DATA_DIR
    data_dir = pathlib.Path(data_dir).expanduser()
    downloads = data_dir / "downloads"

    files = None
    if path is not None:
        path = pathlib.Path(path).expanduser()
        files = _find_files(name, builder_class, path)
    else:
        builder = builder_class(data_dir=data_dir, config=config)
        if not _is_prepared(builder):
            with contextlib.suppress(FileNotFoundError):
                path = downloads / "manual"
                files = builder_class.find_files(path)
            if files is None and name == "books":
                raise ValueError(
                    f"corpus 'books' needs a path, got None. "
                    f"{builder_class.MANUAL_DOWNLOAD_INSTRUCTIONS}"
                )
    if files is not None:
        # Books change, and a folder may have only some of the splits.
        data_dir = data_dir / "lrm_from_files" / _identity(path, files)
        builder = builder_class(data_dir=data_dir, config=config)
    if not _is_prepared(builder):
        origin = builder_class.URL if files is None else path
        print(
            f"preparing corpus {name} from {origin} in {builder.data_dir}",
            file=sys.stderr,
            flush=True,
        )
        _prepare(builder, path, downloads)
        builder = builder_class(data_dir=data_dir, config=config)
    return _corpus(name, builder)


def _find_files(name, builder_class, path):
    try:
        return builder_class.find_files(path)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"corpus {name!r}: {error}") from error


def _identity(folder, files):
    """Returns a hash of the names, lengths and times of files."""
    digest = hashlib.sha256()
    for kind, paths in sorted(files.items()):
        for path in paths:
            status = path.stat()
            name = os.fsencode(path.relative_to(folder))
            digest.update(b"%s\0%s\0" % (kind.encode(), name))
            digest.update(b"%d %d\n" % (status.st_size, status.st_mtime_ns))
    return digest.hexdigest()[:16]


def _is_prepared(builder):
    # TFDS's own method logs a warning where there is nothing yet.
    return (builder.data_path / "dataset_info.json").exists()


def _prepare(builder, manual_dir, downloads):
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(
        manual_dir=manual_dir, try_download_gcs=False
    )
    try:
        # TFDS prints two paragraphs; the caller has printed one line.
        with (
            open(os.devnull, "w", encoding="utf-8") as nowhere,
            contextlib.redirect_stdout(nowhere),
        ):
            builder.download_and_prepare(
                download_dir=downloads, download_config=config
            )
    except OSError:
        # Another process may have been faster: TFDS writes to a folder of
        # its own and renames that, which fails where the data already are.
        if not _is_prepared(builder):
            raise


def _corpus(name, builder):
    metadata = builder.info.metadata
    splits = metadata["splits"]
    fingerprint = metadata["fingerprint"]
    sizes = ", ".join(
        f"{split} {values['bytes']:,}" for split, values in splits.items()
    )
    return TfdsCorpus(
        name=name,
        splits=tuple(splits),
        fingerprint=fingerprint,
        description=f"{name}: {sizes} bytes, sha256 {fingerprint[:12]}",
        missing=dict(metadata["missing"]),
        data_dir=str(builder.data_dir),
        _builder=builder,
    )
