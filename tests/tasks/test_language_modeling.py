"""Which ids a task gives its text."""

import json

import pytest

from official_lrm.configs import LanguageModelingConfig
from official_lrm.data import ByteTokenizer, SymbolTokenizer
from official_lrm.tasks.language_modeling import LanguageModelingTask

# The cuts are after 90 and after 95 bytes.
TRAIN = b"cab\n" * 20 + b"a" * 10  # a 30, then c b \n, each 20
TEXT = TRAIN + b"ab\nca" + b"cabba"


@pytest.fixture
def make_task(tmp_path):
    """Returns make(text, kind, vocab_size, preset, split, skip_newlines)."""

    def make(
        text=TEXT,
        kind="symbols",
        vocab_size=7,
        preset="",
        split="train",
        skip_newlines=False,
        max_tokens=None,
    ):
        path = tmp_path / "text.txt"
        path.write_bytes(text)
        return LanguageModelingTask(
            LanguageModelingConfig(
                model={"vocab_size": vocab_size},
                corpus={
                    "name": "text",
                    "input_path": str(path),
                    "tokenizer": kind,
                    "skip_newlines": skip_newlines,
                },
                train_data={
                    "split": split,
                    "global_batch_size": 2,
                    "segment_length": 5,
                },
                validation_data={
                    "split": "validation",
                    "global_batch_size": 1,
                    "segment_length": 4,
                    "max_tokens": max_tokens,
                },
                init_checkpoint=str(preset),
            )
        )

    return make


@pytest.fixture
def make_preset(tmp_path):
    """Returns make(tokenizer) -> a folder with its file, or with none."""

    def make(tokenizer):
        folder = tmp_path / "preset"
        folder.mkdir()
        if tokenizer is not None:
            config = json.dumps(tokenizer.get_config())
            (folder / "tokenizer.json").write_text(config)
        return folder

    return make


def symbols_of(task):
    return bytes(task.tokenizer.get_config()["symbols"])


def refusal(task):
    with pytest.raises(ValueError) as error:
        _ = task.tokenizer
    assert "\n" not in str(error.value)
    return str(error.value)


class TestSymbols:
    def test_they_are_those_of_all_splits(self, make_task):
        # In all of it a 34, b 23, c 22, newline 21.
        task = make_task()
        assert symbols_of(task) == b"abc\n"
        train = task.training_lanes().batch(0)
        assert train["tokens"][0].tolist() == [2, 0, 1, 3, 2]
        batch = task.evaluation_lanes().batch(0)
        assert batch["tokens"].tolist() == [[0, 1, 3, 2]]
        assert batch["targets"].tolist() == [[1, 3, 2, 0]]
        assert symbols_of(make_task(split="validation")) == b"abc\n"

    def test_newlines_may_be_skipped(self, make_task):
        task = make_task(skip_newlines=True)
        assert symbols_of(task) == b"abc"
        batch = task.evaluation_lanes().batch(0)
        assert batch["tokens"].tolist() == [[0, 1, 2, 0]]
        assert batch["targets"].tolist() == [[1, 2, 0, 0]]
        assert batch["weights"].tolist() == [[1, 1, 1, 0]]

    def test_a_model_may_have_as_many_ids_and_more(self, make_task):
        for size in (4, 5, 256):
            assert make_task(vocab_size=size).tokenizer.vocab_size == 4

    def test_a_model_may_not_have_fewer(self, make_task):
        line = refusal(make_task(vocab_size=3))
        assert "task.model.vocab_size must be at least the 4 symbols" in line
        assert "of corpus 'text'; got 3" in line


def test_evaluation_may_be_of_the_first_targets_only(make_task):
    lanes = make_task(max_tokens=3).evaluation_lanes()
    assert lanes.num_targets == 3
    assert lanes.batch(0)["weights"].tolist() == [[1, 1, 1, 0]]
    assert make_task(max_tokens=3).training_lanes().num_tokens == 90
    assert make_task(max_tokens=99).evaluation_lanes().num_targets == 4


@pytest.mark.parametrize("kind", ["bytes", "symbols"])
@pytest.mark.parametrize("size", [257, 267_735])
def test_a_vocabulary_of_words_is_refused(make_task, kind, size):
    line = refusal(make_task(kind=kind, vocab_size=size))
    assert "task.model.vocab_size must be at most 256" in line
    assert f"task.corpus.tokenizer={kind}; got {size}." in line


@pytest.mark.parametrize("size", [128, 256])
def test_bytes_have_all_ids_of_the_model(make_task, size):
    config = make_task(kind="bytes", vocab_size=size).tokenizer.get_config()
    assert config == {"type": "bytes", "vocab_size": size}


class TestFromAPreset:
    def test_its_symbols_are_taken(self, make_task, make_preset):
        # Given weights that know other ids than this text has by itself,
        preset = make_preset(SymbolTokenizer(b"x\nabc"))
        task = make_task(preset=preset)
        # when the text is encoded, then with theirs.
        assert symbols_of(task) == b"x\nabc"
        tokens = task.training_lanes().batch(0)["tokens"]
        assert tokens[0].tolist() == [4, 2, 3, 1, 4]

    def test_a_byte_that_it_lacks_is_named(self, make_task, make_preset):
        task = make_task(preset=make_preset(SymbolTokenizer(b"ab\n")))
        message = "^train split .* byte 99 at offset 0 is none of the 3"
        with pytest.raises(ValueError, match=message):
            task.training_lanes()

    @pytest.mark.parametrize(
        ("kind", "tokenizer"),
        [
            ("bytes", SymbolTokenizer(b"acb\n")),
            ("symbols", ByteTokenizer()),
        ],
        ids=["bytes", "symbols"],
    )
    def test_another_kind_is_refused(
        self, make_task, make_preset, kind, tokenizer
    ):
        preset = make_preset(tokenizer)
        line = refusal(make_task(kind=kind, preset=preset, vocab_size=256))
        theirs = tokenizer.get_config()["type"]
        assert f"task.corpus.tokenizer must be '{theirs}'" in line
        assert f"as in {preset}; got '{kind}'" in line

    def test_more_ids_than_the_model_has_are_refused(
        self, make_task, make_preset
    ):
        preset = make_preset(SymbolTokenizer(b"acb\nxyz."))
        line = refusal(make_task(preset=preset))
        assert f"at least the 8 symbols of {preset}; got 7" in line

    def test_a_damaged_file_is_named(self, make_task, make_preset):
        preset = make_preset(None)
        (preset / "tokenizer.json").write_text("{")
        assert str(preset / "tokenizer.json") in refusal(
            make_task(preset=preset)
        )

    def test_without_a_file_bytes_are_bytes(self, make_task, make_preset):
        preset = make_preset(None)
        task = make_task(kind="bytes", preset=preset, vocab_size=131)
        assert task.tokenizer.vocab_size == 131

    def test_without_a_file_symbols_are_not_known(self, make_task, make_preset):
        preset = make_preset(None)
        line = refusal(make_task(preset=preset))
        assert f"{preset} holds no tokenizer.json" in line


def test_the_tokenizer_of_the_weights_may_be_set(make_task):
    task = make_task()
    tokenizer = SymbolTokenizer(b"\nabc")
    task.use_tokenizer(tokenizer, "runs/a")
    assert task.tokenizer is tokenizer
    with pytest.raises(ValueError, match="must be 'bytes', as in runs/a; got"):
        task.use_tokenizer(ByteTokenizer(5), "runs/a")
    with pytest.raises(ValueError, match="the 8 symbols of runs/a; got 7"):
        task.use_tokenizer(SymbolTokenizer(b"abcdefgh"), "runs/a")
