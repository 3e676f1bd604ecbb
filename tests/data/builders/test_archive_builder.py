import lzma
import pathlib

import pytest
import requests

from official_lrm.data import builders
from official_lrm.data.builders import archive_builder

ARCHIVED = [
    builders.LrmEnwik8,
    builders.LrmText8,
    builders.LrmWikitext2,
    builders.LrmWikitext103,
]


@pytest.mark.parametrize("builder_class", ARCHIVED)
def test_an_archive_has_a_checksum_and_its_files_whole_splits(builder_class):
    info = builder_class.url_infos[builder_class.URL]
    assert info.filename == builder_class.URL.rpartition("/")[2]
    assert len(info.checksum) == 64
    lengths = {"md5": 32, "sha1": 40}
    splits = []
    for file in builder_class.FILES:
        assert len(file.digest) == lengths[file.algorithm]
        stops = [stop for _, stop in file.parts.values()]
        starts = [start for start, _ in file.parts.values()]
        # The parts follow one another up to the end of the file.
        assert starts == [0, *stops[:-1]]
        assert stops[-1] in (None, file.num_bytes)
        splits += file.parts
    assert splits == ["train", "validation", "test"]


@pytest.mark.parametrize("form", ["archive", "files"])
@pytest.mark.parametrize("builder_class", ARCHIVED)
def test_bytes_are_kept(builder_class, form, fakes, tmp_path, prepare, read):
    getattr(fakes, form)(tmp_path, builder_class)
    builder = prepare(builder_class, tmp_path)
    for file in builder_class.FILES:
        text = fakes.texts(builder_class)[file.name]
        for split, (start, stop) in file.parts.items():
            assert read(builder, split) == [(0, text[start:stop])]


def test_the_published_splits_of_enwik8():
    parts = builders.LrmEnwik8.FILES[0].parts
    lengths = {split: stop - start for split, (start, stop) in parts.items()}
    assert lengths == {
        "train": 90_000_000,
        "validation": 5_000_000,
        "test": 5_000_000,
    }


@pytest.mark.parametrize(
    "name",
    [
        "wikitext-2.test.tokens.xz",
        "wiki.test.tokens.xz",
        "wikitext-2/wiki.test.tokens",
    ],
)
def test_some_of_the_files_make_some_of_the_splits(
    name, fakes, tmp_path, prepare, read
):
    builder_class = builders.LrmWikitext2
    text = fakes.expect(builder_class)["wiki.test.tokens"]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(lzma.compress(text) if name.endswith(".xz") else text)
    builder = prepare(builder_class, tmp_path)
    assert list(builder.info.splits) == ["test"]
    assert read(builder, "test") == [(0, text)]
    assert builder.info.metadata["missing"] == {
        "train": "wiki.train.tokens",
        "validation": "wiki.valid.tokens",
    }


def test_the_fingerprint_is_of_the_content(fakes, tmp_path, prepare):
    seen = {}
    for form in ("archive", "files"):
        folder = tmp_path / form
        folder.mkdir()
        getattr(fakes, form)(folder, builders.LrmWikitext2)
        builder = prepare(builders.LrmWikitext2, folder)
        seen[form] = dict(builder.info.metadata)
        builder.data_path.rmtree()
    assert seen["archive"] == seen["files"]
    (folder / "wiki.test.tokens").unlink()
    part = prepare(builders.LrmWikitext2, folder).info.metadata
    assert part["fingerprint"] != seen["files"]["fingerprint"]


def test_a_wrong_length_is_refused(fakes, tmp_path, prepare):
    fakes.files(tmp_path, builders.LrmWikitext103)
    path = tmp_path / "wiki.test.tokens"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(
        ValueError,
        match=r"wiki.test.tokens' has 263 bytes of text; wiki.test.tokens of "
        r"lrm_wikitext103 has 270$",
    ):
        prepare(builders.LrmWikitext103, tmp_path)


def test_a_wrong_hash_is_refused(fakes, tmp_path, prepare):
    fakes.files(tmp_path, builders.LrmEnwik8)
    path = tmp_path / "enwik8"
    path.write_bytes(path.read_bytes().replace(b"page", b"pace", 1))
    digest = builders.LrmEnwik8.FILES[0].digest
    with pytest.raises(
        ValueError, match=rf"enwik8' has MD5 .*; enwik8 .* has {digest}$"
    ):
        prepare(builders.LrmEnwik8, tmp_path)


def test_articles_in_another_order_are_taken_with_a_warning(
    fakes, tmp_path, prepare, read, caplog
):
    fakes.files(tmp_path, builders.LrmWikitext2)
    path = tmp_path / "wiki.train.tokens"
    text = b" words here \n" + path.read_bytes()[: -len(b" words here \n")]
    path.write_bytes(text)
    builder = prepare(builders.LrmWikitext2, tmp_path)
    assert read(builder, "train") == [(0, text)]
    assert "articles in another order" in caplog.text
    assert "wiki.train.tokens' has SHA1" in caplog.text


def test_other_words_of_the_same_length_are_refused(fakes, tmp_path, prepare):
    fakes.files(tmp_path, builders.LrmWikitext2)
    path = tmp_path / "wiki.train.tokens"
    path.write_bytes(path.read_bytes().replace(b"train words", b"train.words"))
    with pytest.raises(ValueError, match="has 240 words .* instead of 270$"):
        prepare(builders.LrmWikitext2, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-1], r"zip' has .* bytes; .* has"),
        (lambda content: content[:-1] + b"x", r"zip' has SHA-256 .*; .* has"),
    ],
)
def test_a_wrong_archive_is_refused(change, message, fakes, tmp_path, prepare):
    path = fakes.archive(tmp_path, builders.LrmText8)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        prepare(builders.LrmText8, tmp_path)


class Downloads:
    """A download manager without a folder of manual downloads."""

    def __init__(self, result):
        self._result = result

    @property
    def manual_dir(self):
        raise AssertionError("Manual directory\ndoes not exist.")

    def download(self, url):
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


@pytest.fixture
def reachable(monkeypatch):
    monkeypatch.setattr(requests, "head", lambda url, timeout: None)


def test_a_missing_archive_is_downloaded(reachable, tmp_path):
    builder = builders.LrmWikitext2(data_dir=tmp_path)
    path = str(tmp_path / "downloaded.zip")
    files = builder._get_files(Downloads(path))
    assert files == {"wikitext-2-v1.zip": [pathlib.Path(path)]}


@pytest.mark.parametrize(
    "error",
    [
        requests.exceptions.ConnectionError("no\nnetwork"),
        archive_builder.download_manager.NonMatchingChecksumError("a\nb"),
    ],
)
def test_a_failed_download_says_what_to_put_where(reachable, tmp_path, error):
    builder = builders.LrmWikitext2(data_dir=tmp_path)
    with pytest.raises(ConnectionError) as raised:
        builder._get_files(Downloads(error))
    message = str(raised.value)
    assert "\n" not in message
    assert builder.URL in message
    assert "put wikitext-2-v1.zip, or wiki.train.tokens" in message


def test_without_network_nothing_is_tried_for_minutes(monkeypatch, tmp_path):
    def unreachable(url, timeout):
        raise requests.exceptions.ConnectTimeout(url)

    monkeypatch.setattr(requests, "head", unreachable)
    builder = builders.LrmEnwik8(data_dir=tmp_path)
    with pytest.raises(ConnectionError, match="cannot download"):
        builder._get_files(Downloads(NotImplementedError()))
