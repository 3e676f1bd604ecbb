"""Tests of text in and text out."""

import io
import os

import numpy as np
import pytest

from official_lrm.data import ByteTokenizer
from official_lrm.serving import TextGenerator, text_stream


class Scripted:
    """A generator that writes given bytes, cut into given chunks."""

    def __init__(self, *chunks):
        self._chunks = chunks

    def stream(self, tokens, **sampling):
        self.prompt = bytes(tokens.astype("uint8"))
        self.sampling = sampling
        for chunk in self._chunks:
            yield np.frombuffer(chunk, "uint8").astype("int32")


def write(generator, prompt, tokenizer=None, **sampling):
    stream = io.StringIO()
    tokenizer = tokenizer or ByteTokenizer()
    rate = text_stream.write_text(
        generator, tokenizer, prompt, stream, **sampling
    )
    assert rate >= 0
    return stream.getvalue()


class TestBytes:
    def test_characters_may_be_cut_anywhere(self):
        # Given a character cut by the end of the prompt, and others by the
        # calls,
        text = "né – 日本 🙂"
        data = text.encode("utf-8")
        cuts = [data[2:3], data[3:5], data[5:11], data[11:12], data[12:]]
        generator = Scripted(*cuts)
        # when they are written, then none is broken.
        assert data[:2] == b"n\xc3"
        assert write(generator, data[:2]) == f"{text}\n"
        assert generator.prompt == data[:2]

    def test_what_is_no_utf8_is_shown_as_such(self):
        generator = Scripted(b"a\xff", b"b\xc3")
        assert write(generator, b"\xfe") == "\ufffda\ufffdb\ufffd\n"

    def test_nothing_is_written_but_the_prompt(self):
        assert write(Scripted(), "né".encode()) == "né\n"

    def test_settings_are_handed_on(self):
        generator = Scripted(b"a")
        write(generator, b"b", max_new_tokens=7, seed=5)
        assert generator.sampling == {"max_new_tokens": 7, "seed": 5}

    def test_an_empty_prompt_is_refused(self):
        with pytest.raises(ValueError, match="at least one byte; got none"):
            write(Scripted(b"a"), b"")

    def test_bytes_outside_the_vocabulary_are_refused(self):
        with pytest.raises(ValueError, match="byte 97 at offset 1 is outside"):
            write(Scripted(), b"\x05a", ByteTokenizer(23))


class TestSources:
    @pytest.fixture(scope="class")
    def preset(self, of_bytes, tmp_path_factory):
        path = tmp_path_factory.mktemp("preset")
        of_bytes.model.save_to_preset(path, ByteTokenizer())
        return str(path)

    @pytest.fixture(scope="class")
    def expected(self, of_bytes):
        generator = TextGenerator.from_model(of_bytes.model)
        prompt = np.frombuffer("né ".encode(), "uint8")
        tokens = np.concatenate(
            list(generator.stream(prompt, max_new_tokens=41, seed=7))
        )
        text = "né ".encode() + tokens.astype("uint8").tobytes()
        return text.decode("utf-8", errors="replace") + "\n"

    @pytest.mark.parametrize("source", ["preset", "export", "version"])
    def test_all_write_the_same(self, of_bytes, preset, expected, source):
        path = {
            "preset": preset,
            "export": os.path.dirname(of_bytes.path),
            "version": of_bytes.path,
        }[source]
        generator, tokenizer = text_stream.open_generator(path)
        assert tokenizer.vocab_size == 256
        prompt = "né ".encode()
        assert expected == write(
            generator, prompt, max_new_tokens=41, seed=7, tokens_per_call=11
        )

    def test_the_newest_version_is_taken(self, tmp_path, monkeypatch):
        for name in ("2", "11"):
            (tmp_path / name).mkdir()
        opened = []
        monkeypatch.setattr(TextGenerator, "from_saved_model", opened.append)
        text_stream.open_generator(str(tmp_path))
        assert opened == [str(tmp_path / "11")]

    def test_nothing_there(self, tmp_path):
        message = f"^{tmp_path} is neither a model_dir, a preset nor an"
        with pytest.raises(FileNotFoundError, match=message):
            text_stream.open_generator(str(tmp_path))
