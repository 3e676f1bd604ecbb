"""Tests of text in and text out."""

import io
import json
import os
import shutil
import types

import numpy as np
import pytest

from official_lrm.data import (
    ByteTokenizer,
    SentencePieceTokenizer,
    SymbolTokenizer,
    WordTokenizer,
)
from official_lrm.serving import TextGenerator, text_stream


class Scripted:
    """A generator that writes given ids, cut into given chunks."""

    def __init__(self, *chunks):
        self._chunks = chunks

    def stream(self, tokens, **sampling):
        self.prompt = bytes(tokens.astype("uint8"))
        self.sampling = sampling
        for chunk in self._chunks:
            if isinstance(chunk, bytes):
                chunk = np.frombuffer(chunk, "uint8")
            yield chunk.astype("int32")


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


class TestSymbols:
    def test_ids_are_the_tokenizers(self):
        tokenizer = SymbolTokenizer("an é".encode())
        generator = Scripted(bytes([0, 1]), bytes([3]), bytes([4, 2]))
        assert write(generator, "né".encode(), tokenizer) == "néané \n"
        assert generator.prompt == bytes([1, 3, 4])

    def test_ids_that_stand_for_nothing_are_shown_as_such(self):
        # Given a model with more ids than the text that it was trained on,
        tokenizer = SymbolTokenizer("né".encode())
        # when it writes them, one within a character,
        generator = Scripted(bytes([3]), bytes([0, 1, 2, 1, 255]), bytes([2]))
        # then the text goes on, and they are seen.
        text = write(generator, b"n", tokenizer)
        assert text == "n\ufffdné\ufffd\ufffd\ufffd\n"

    def test_bytes_that_are_none_are_refused(self):
        message = "byte 10 at offset 1 is none of the 1 symbols"
        with pytest.raises(ValueError, match=message):
            write(Scripted(), b"a\n", SymbolTokenizer(b"a"))


class TestWords:
    TOKENIZER = WordTokenizer(["<eos>", "the", "né", "<unk>"])

    @pytest.mark.parametrize("size", [1, 2, 100])
    def test_words_are_apart_and_lines_end(self, size):
        # However the calls cut them.
        ids = bytes([1, 2, 0, 0, 3, 1, 0, 2])
        chunks = [ids[i : i + size] for i in range(0, len(ids), size)]
        generator = Scripted(*chunks)
        text = write(generator, b"the", self.TOKENIZER)
        assert text == "the the né\n\n<unk> the\nné\n"
        assert generator.prompt == bytes([1])

    @pytest.mark.parametrize(
        ("prompt", "expected"),
        [
            ("né the ", "né the né\n"),
            ("né\n", "né\nné\n"),
            ("\n", "\nné\n"),
            (" a \n  the", "<unk>\nthe né\n"),
        ],
    )
    def test_the_prompt_is_shown_as_the_model_reads_it(self, prompt, expected):
        assert (
            write(Scripted(b"\2"), prompt.encode(), self.TOKENIZER) == expected
        )

    def test_ids_that_stand_for_nothing_are_shown_as_such(self):
        generator = Scripted(bytes([7, 1]), bytes([9]))
        assert write(generator, b"the", self.TOKENIZER) == (
            "the\ufffd the\ufffd\n"
        )

    @pytest.mark.parametrize("prompt", [b" ", b" \t\r"])
    def test_a_prompt_without_words_is_refused(self, prompt):
        with pytest.raises(ValueError, match="at least one word; got none"):
            write(Scripted(), prompt, self.TOKENIZER)


def test_pieces_may_be_parts_of_characters():
    tokenizer = SentencePieceTokenizer.learn([b"the cat the hat"], 270)
    prompt, text = "the né ", "cat 日 🙂 the hat\n"
    ids = tokenizer.encode(text).astype("uint16")
    # Some are single bytes of them; Scripted cuts after each.
    generator = Scripted(*(ids[i : i + 1] for i in range(ids.size)))
    assert write(generator, prompt.encode(), tokenizer) == prompt + text + "\n"


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

        def load(path):
            opened.append(path)
            return types.SimpleNamespace(vocab_size=256)

        monkeypatch.setattr(TextGenerator, "from_saved_model", load)
        text_stream.open_generator(str(tmp_path))
        assert opened == [str(tmp_path / "11")]

    def test_nothing_there(self, tmp_path):
        message = f"^{tmp_path} is neither a model_dir, a preset nor an"
        with pytest.raises(FileNotFoundError, match=message):
            text_stream.open_generator(str(tmp_path))


class TestTokenizers:
    """What a model's own file says its ids are, and what there is without."""

    @pytest.fixture(autouse=True)
    def no_signatures(self, monkeypatch):
        # Seconds each, and none is called here.
        monkeypatch.setattr(TextGenerator, "from_model", lambda model: None)

    @pytest.fixture(params=["preset", "export"])
    def make_source(self, request, retained, make_model, tmp_path):
        """Returns make(config) -> a source of 23 ids that holds the config."""

        def make(config):
            folder = tmp_path / "source"
            if request.param == "preset":
                make_model().save_to_preset(folder)
                file = folder / "tokenizer.json"
            else:
                shutil.copytree(retained.path, folder)
                file = folder / "assets.extra" / "tokenizer.json"
            if config is not None:
                file.parent.mkdir(exist_ok=True)
                file.write_text(json.dumps(config))
            return str(folder)

        return make

    def test_symbols_are_read(self, make_source):
        config = SymbolTokenizer(b"cab").get_config()
        _, tokenizer = text_stream.open_generator(make_source(config))
        assert tokenizer.get_config() == config

    def test_without_a_file_23_ids_stand_for_nothing_known(self, make_source):
        path = make_source(None)
        message = f"^{path} holds no tokenizer .* its 23 ids are not the 256"
        with pytest.raises(ValueError, match=message):
            text_stream.open_generator(path)

    def test_there_may_not_be_more_symbols_than_ids(self, make_source):
        path = make_source(SymbolTokenizer(bytes(range(24))).get_config())
        message = f"^{path} holds a tokenizer of 24 ids, more than the 23 of"
        with pytest.raises(ValueError, match=message):
            text_stream.open_generator(path)

    def test_without_a_file_256_ids_are_bytes(self, make_model, tmp_path):
        make_model(vocab_size=256).save_to_preset(tmp_path)
        _, tokenizer = text_stream.open_generator(str(tmp_path))
        assert tokenizer.get_config() == ByteTokenizer().get_config()
