"""Small stand-ins for the files that the builders expect."""

import dataclasses
import hashlib
import zipfile

import pytest
import tensorflow_datasets as tfds

from official_lrm.data import builders

# Not UTF-8, nowhere the same twice, of a length that has whole percents.
HUTTER_TEXT = b"".join(b"\xff<page %04d>\r\n" % n for n in range(500))
WIKI_TEXTS = {
    "wiki.train.tokens": b" = One = \n \n train words here \n" * 30,
    "wiki.valid.tokens": b" = Two = \n \n some <unk> words \n" * 20,
    "wiki.test.tokens": b" = Three = \n \n and others \n" * 10,
}


def texts_of(builder_class):
    """Small contents for the files of a builder, by their names."""
    if builder_class.FILES[0].name in ("enwik8", "text8"):
        return {builder_class.FILES[0].name: HUTTER_TEXT}
    return WIKI_TEXTS


def expect_texts(builder_class, texts):
    """The files of a builder, as if `texts` were what they hold."""
    expected = []
    for file in builder_class.FILES:
        text, parts = texts[file.name], file.parts
        if len(parts) > 1:
            edges = [len(text) * n // 100 for n in (0, 90, 95, 100)]
            parts = {
                split: (edges[i], edges[i + 1]) for i, split in enumerate(parts)
            }
        num_tokens = file.num_tokens
        if num_tokens is not None:
            num_tokens = len(text.split()) + text.count(b"\n")
        expected.append(
            dataclasses.replace(
                file,
                parts=parts,
                num_bytes=len(text),
                digest=hashlib.new(file.algorithm, text).hexdigest(),
                num_tokens=num_tokens,
            )
        )
    return tuple(expected)


def write_archive(path, builder_class, texts):
    folder = path.name.removesuffix("-v1.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(f"{folder}/{name}", text)
    content = path.read_bytes()
    return {
        builder_class.URL: tfds.download.checksums.UrlInfo(
            size=len(content),
            checksum=hashlib.sha256(content).hexdigest(),
            filename=path.name,
        )
    }


class Fakes:
    """Makes folders that hold stand-ins, and lets the builders expect them.

    Args:
        monkeypatch: pytest.MonkeyPatch.
    """

    def __init__(self, monkeypatch):
        self._monkeypatch = monkeypatch

    def texts(self, builder_class):
        return texts_of(builder_class)

    def expect(self, builder_class, texts=None):
        texts = texts or texts_of(builder_class)
        files = expect_texts(builder_class, texts)
        self._monkeypatch.setattr(builder_class, "FILES", files)
        return texts

    def archive(self, folder, builder_class):
        """Writes the archive, and expects it; returns its path."""
        texts = self.expect(builder_class)
        path = folder / builder_class.URL.rpartition("/")[2]
        url_infos = write_archive(path, builder_class, texts)
        self._monkeypatch.setattr(builder_class, "url_infos", url_infos)
        return path

    def files(self, folder, builder_class):
        """Writes the extracted files, and expects them."""
        for name, text in self.expect(builder_class).items():
            (folder / name).write_bytes(text)


@pytest.fixture
def fakes(monkeypatch):
    return Fakes(monkeypatch)


@pytest.fixture(scope="class")
def example_dir(request, tmp_path_factory):
    """Sets up the files of a DatasetBuilderTestCase: an archive, or books."""
    builder_class = request.cls.DATASET_CLASS
    folder = tmp_path_factory.mktemp(builder_class.name)
    request.cls.EXAMPLE_DIR = str(folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        if builder_class is builders.LrmBooks:
            for number in range(5):
                text = b"book %d\r\n" % number * 100
                (folder / f"{number}.txt").write_bytes(text)
        else:
            Fakes(monkeypatch).archive(folder, builder_class)
        yield


@pytest.fixture
def prepare(tmp_path):
    """Prepares a dataset from a folder; returns its builder."""

    def run(builder_class, folder, config=None):
        builder = builder_class(data_dir=tmp_path / "tfds", config=config)
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=folder)
        )
        return builder

    return run


@pytest.fixture
def read():
    """Reads a split: list of (document, bytes), in the order they come in."""

    def run(builder, split):
        return [
            (int(example["document"]), example["text"])
            for example in tfds.as_numpy(builder.as_dataset(split=split))
        ]

    return run
