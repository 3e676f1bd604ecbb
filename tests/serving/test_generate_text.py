"""Tests of `generate_text` against the signatures that it is made of."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.data import ByteTokenizer
from official_lrm.serving import ServingModule, checks, decoding
from official_lrm.serving.checks import MAX_NEW_TOKENS

KINDS = ("bytes", "symbols", "words", "sentencepiece")
# B = 5 texts that begin and end with anything, of 1 to 31 bytes.
PROMPTS = (
    b"the cat sat on the mat\nthe cat",
    b"t",
    "the cat 日本".encode(),
    b"sat on the\n",
    b"n\xc3\xa9 the \xe6\x97",
)
# That differ in everything; one writes nothing.
SAMPLING = {
    "max_new_tokens": np.array([29, 17, 0, 1, 13], "int32"),
    "temperature": np.array([1, 1.5, 1, 0, 0.7], "float32"),
    "top_k": np.array([0, 7, 3, 0, 0], "int32"),
    "top_p": np.array([1, 1, 1, 1, 0.9], "float32"),
    "seed": np.array([2**40 + 5, -3, 11, 2, 7], "int64"),
    "stop_token": np.full(5, -1, "int32"),
}


def lane(values, index):
    return {name: np.array(value)[[index]] for name, value in values.items()}


def as_text(texts):
    return np.array(texts, object)


def step_by_step(call, export, text, sampling):
    """(new text, tokens) of one text: tokenize, generate, detokenize."""
    prompt = call("tokenize", {"text": as_text([text])})["tokens"]
    outputs = call(
        "generate",
        {
            "tokens": prompt,
            **export.model.initial_memories(1),
            **sampling,
        },
    )
    written = outputs["generated"][0, : outputs["generated_lengths"][0]]
    decode = export.tokenizer.decode
    prompt = prompt[0].tolist()
    known = [i for i in written if i < export.tokenizer.vocab_size]
    whole, before = decode(prompt + known), decode(prompt)
    assert whole.startswith(before)
    return whole[len(before) :], written.tolist()


def assert_as_step_by_step(call, export, prompts, sampling):
    """Compares with each text alone; returns the tokens that each drew."""
    outputs = call("generate_text", {"text": as_text(prompts), **sampling})
    alone = [
        step_by_step(call, export, text, lane(sampling, i))
        for i, text in enumerate(prompts)
    ]
    texts, tokens = zip(*alone, strict=True)
    assert outputs["generated_text"].tolist() == list(texts)
    assert outputs["generated_lengths"].tolist() == list(map(len, tokens))
    return tokens


@pytest.fixture(scope="module", params=KINDS)
def exported(request, make_of_text):
    """The export of a model with each tokenizer."""
    return make_of_text(request.param)


@pytest.fixture
def call(call_export, exported):
    """Calls a signature of `exported`, through either of two runtimes."""
    return functools.partial(call_export, exported)


@pytest.fixture
def prompts(exported):
    """PROMPTS, but for what the tokenizer has no id for."""
    if exported.tokenizer.type == "symbols":
        return [text.replace(b"\xc3\xa9", b"\xc3") for text in PROMPTS]
    return list(PROMPTS)


class TestStepByStep:
    def test_sampled(self, exported, call, prompts):
        tokens = assert_as_step_by_step(call, exported, prompts, SAMPLING)
        assert [len(drawn) for drawn in tokens] == [29, 17, 0, 1, 13]

    def test_greedy(self, exported, call, prompts):
        sampling = {
            **SAMPLING,
            "max_new_tokens": np.full(5, 7, "int32"),
            "temperature": np.zeros(5, "float32"),
        }
        tokens = assert_as_step_by_step(call, exported, prompts, sampling)
        # Seeds do not matter, then.
        sampling["seed"] = np.full(5, 23, "int64")
        again = assert_as_step_by_step(call, exported, prompts, sampling)
        assert again == tokens
        assert list(map(len, tokens)) == [7] * 5

    def test_stop_tokens(self, exported, call, prompts):
        # Given stop tokens that a run without them writes,
        sampling = {**SAMPLING, "temperature": np.ones(5, "float32")}
        tokens = assert_as_step_by_step(call, exported, prompts, sampling)
        stop_token = np.array(
            [tokens[0][11], tokens[1][5], 2, tokens[3][0], -1], "int32"
        )
        # when they are given,
        stopped = assert_as_step_by_step(
            call, exported, prompts, {**sampling, "stop_token": stop_token}
        )
        # then lanes end with their first occurrence, and others do not.
        for i in (0, 1, 3):
            end = tokens[i].index(stop_token[i]) + 1
            assert stopped[i] == tokens[i][:end]
        assert len(stopped[0]) < 29
        assert stopped[2] == []
        assert stopped[4] == tokens[4]

    def test_seeds_matter(self, exported, call, prompts):
        sampling = {
            **SAMPLING,
            "max_new_tokens": np.full(5, 29, "int32"),
            "temperature": np.full(5, 3, "float32"),
            "top_k": np.zeros(5, "int32"),
        }
        texts = [
            call(
                "generate_text",
                {
                    "text": as_text(prompts),
                    **sampling,
                    "seed": np.full(5, seed, "int64"),
                },
            )["generated_text"].tolist()
            for seed in (3, 3, 3 + 2**32)
        ]
        assert texts[0] == texts[1]
        assert texts[0] != texts[2]

    def test_nothing_to_write(self, exported, call, prompts):
        sampling = {**SAMPLING, "max_new_tokens": np.zeros(5, "int32")}
        outputs = call("generate_text", {"text": as_text(prompts), **sampling})
        assert outputs["generated_text"].tolist() == [b""] * 5
        assert outputs["generated_lengths"].tolist() == [0] * 5

    def test_no_lanes(self, call):
        sampling = {name: value[:0] for name, value in SAMPLING.items()}
        outputs = call("generate_text", {"text": as_text([]), **sampling})
        assert outputs["generated_text"].shape == (0,)
        assert outputs["generated_lengths"].shape == (0,)

    def test_ids_that_stand_for_nothing_are_left_out(self, exported, call):
        # Given models of more ids than their tokenizers, but for the bytes,
        missing = exported.model.vocab_size - exported.tokenizer.vocab_size
        assert (missing == 0) == (exported.tokenizer.type == "bytes")
        sampling = {
            **lane(SAMPLING, 1),
            "max_new_tokens": np.array([211], "int32"),
            "temperature": np.array([1e4], "float32"),
            "top_k": np.array([0], "int32"),
        }
        # when all are as likely,
        (drawn,) = assert_as_step_by_step(call, exported, [b"the"], sampling)
        # then such ones are drawn and counted, and are no text.
        assert len(drawn) == 211
        known = [i < exported.tokenizer.vocab_size for i in drawn]
        assert any(known)
        if missing > 1:
            assert not all(known)


class TestLongTexts:
    def test_of_more_than_a_piece(self, of_bytes, call_export):
        # Given texts of which pieces of 512 are read at once, and that end
        # before, with, and one after a piece,
        prompts = [b"the cat sat on it" * 100, b"cat " * 128, b"cat " * 128]
        prompts = [text[:1031] for text in prompts]
        prompts[2] += b"s"
        assert [len(text) for text in prompts] == [1031, 512, 513]
        sampling = {name: value[:3] for name, value in SAMPLING.items()}
        sampling["max_new_tokens"] = np.array([7, 5, 3], "int32")
        call = functools.partial(call_export, of_bytes)
        assert_as_step_by_step(call, of_bytes, prompts, sampling)

    @pytest.mark.parametrize("piece", [1, 7])
    def test_the_size_of_a_piece_does_not_matter(
        self, of_bytes, monkeypatch, piece
    ):
        # Given pieces that texts are of more than one, and of exactly one,
        prompts = [b"the cat sat on the mat", b"the cat", b"on", b"the cats"]
        inputs = {
            "text": tf.constant(prompts),
            **{name: tf.constant(x[:4]) for name, x in SAMPLING.items()},
            "max_new_tokens": tf.constant([7, 3, 0, 5]),
        }
        expected = of_bytes.loaded.signatures["generate_text"](**inputs)
        monkeypatch.setattr(decoding, "PROMPT_PIECE", piece)
        module = ServingModule(of_bytes.model, ByteTokenizer())
        function = module.signatures(["generate_text"])["generate_text"]
        outputs = function(**inputs)
        for name, value in expected.items():
            np.testing.assert_array_equal(outputs[name], value)

    def test_generate_reads_them_as_the_model_does(
        self, short, make_tokens, call_export, assert_memories_equal
    ):
        # Given prompts of two pieces and a bit, and lanes in the middle,
        decoder = short.model.with_spans(short.model.spans, same_length=True)
        _, memories = decoder(make_tokens(3, 7, seed=7))
        memories["position"] = np.array([0, 7, 7], "int32")
        tokens = make_tokens(3, 1031)
        outputs = call_export(
            short,
            "generate",
            {
                "tokens": tokens,
                **memories,
                **{name: value[:3] for name, value in SAMPLING.items()},
                "temperature": np.zeros(3, "float32"),
                "max_new_tokens": np.array([1, 1, 0], "int32"),
            },
        )
        # then the model in the process, which reads all at once, agrees.
        logits, expected = decoder(tokens, memories)
        likeliest = np.argmax(logits[:, -1], axis=-1)
        assert outputs.pop("generated").tolist() == [
            [likeliest[0]],
            [likeliest[1]],
            [-1],
        ]
        assert outputs.pop("generated_lengths").tolist() == [1, 1, 0]
        assert_memories_equal(outputs, expected, atol=1e-5)
        assert outputs["position"].tolist() == [1031, 1038, 1038]

    def test_pieces_are_smaller_where_there_are_many_lanes(
        self, short, make_tokens, monkeypatch, assert_memories_equal
    ):
        # Given room for the scores of 3 lanes and 5 tokens,
        decoder = short.model.with_spans(short.model.spans, same_length=True)
        limit = 3 * 5 * checks.bytes_of_scores(decoder, 13)
        monkeypatch.setattr(checks, "MAX_SCORES_BYTES", limit)
        monkeypatch.setattr(decoding, "PROMPT_PIECE", 13)
        lengths, read = [], decoder.next_logits

        def told(tokens, *args, **kwargs):
            lengths.append(tokens.shape[1])
            return read(tokens, *args, **kwargs)

        monkeypatch.setattr(decoder, "next_logits", told)
        for lanes, expected in ((3, [5, 5, 5, 2]), (1, [13, 4])):
            # when a prompt of 17 tokens is read,
            tokens, memories = (
                make_tokens(lanes, 17),
                decoder.initial_memories(lanes),
            )
            lengths.clear()
            after = decoding.read_prompt(
                decoder, tokens, memories, tf.fill([lanes], 17)
            )
            # then no piece takes more, and the memories are the same.
            assert lengths == expected
            _, memories = decoder(tokens, memories)
            assert_memories_equal(after, memories, atol=1e-5)


class TestRefusals:
    """A server answers INVALID_ARGUMENT with a message that names the input."""

    @pytest.fixture
    def refusal(self, of_bytes, call_export):
        def refuse(**changes):
            inputs = {"text": as_text(PROMPTS), **SAMPLING}
            with pytest.raises(tf.errors.InvalidArgumentError) as caught:
                call_export(of_bytes, "generate_text", {**inputs, **changes})
            return caught.value.message

        return refuse

    @pytest.mark.parametrize("texts", [[b""], [b"the", b""], [b"", b"", b"a"]])
    def test_empty_texts(self, exported, call, texts):
        sampling = {name: x[: len(texts)] for name, x in SAMPLING.items()}
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            call("generate_text", {"text": as_text(texts), **sampling})
        unit = exported.tokenizer.unit
        message = f"text must hold at least one {unit} a lane; got"
        assert message in caught.value.message

    def test_texts_of_white_space_have_no_words(self, make_of_text):
        export = make_of_text("words")
        inputs = {"text": as_text([b" \t "]), **lane(SAMPLING, 0)}
        inputs = {name: tf.constant(value) for name, value in inputs.items()}
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            export.loaded.signatures["generate_text"](**inputs)
        assert "text must hold at least one word" in caught.value.message

    def test_bytes_that_have_no_id(self, make_of_text, call_export):
        inputs = {"text": as_text([b"xyz"]), **lane(SAMPLING, 0)}
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            call_export(make_of_text("symbols"), "generate_text", inputs)
        assert "text must hold the" in caught.value.message
        assert f"{ord('x')}" in caught.value.message

    @pytest.mark.parametrize("name", SAMPLING)
    @pytest.mark.parametrize("lanes", [1, 3])
    def test_sampling_of_another_number_of_lanes(self, refusal, name, lanes):
        message = refusal(**{name: SAMPLING[name][:lanes]})
        assert f"{name} must have as many lanes as" in message

    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("max_new_tokens", -1, "from 0 to"),
            ("max_new_tokens", MAX_NEW_TOKENS + 1, "from 0 to"),
            ("temperature", -0.5, "finite and not negative"),
            ("temperature", np.nan, "finite and not negative"),
            ("top_k", -1, "not be negative"),
            ("top_p", 0, "above 0 and at most 1"),
            ("top_p", 1.01, "above 0 and at most 1"),
        ],
    )
    def test_sampling_out_of_range(self, refusal, name, value, expected):
        values = SAMPLING[name].copy()
        values[3] = value
        message = refusal(**{name: values})
        assert f"{name} must " in message
        assert expected in message

    def test_more_lanes_than_memory_is_for(self, of_bytes, monkeypatch):
        # Given room for 1 MiB,
        monkeypatch.setattr(checks, "MAX_MESSAGE_BYTES", 2**20)
        module = ServingModule(of_bytes.model, ByteTokenizer())
        function = module.signatures(["generate_text"])["generate_text"]

        def inputs(lanes, width, length):
            values = {
                name: np.full(lanes, value[3])
                for name, value in SAMPLING.items()
            }
            values["max_new_tokens"][0] = width
            # One text is long, and lanes are all as wide.
            values["text"] = as_text([b"t"] * (lanes - 1) + [b"t" * length])
            return {name: tf.constant(value) for name, value in values.items()}

        # when memories, what is written and what is read fit,
        outputs = function(**inputs(113, 5, 211))
        assert outputs["generated_lengths"].numpy().tolist() == [5] + [1] * 112
        # then they are written, and refused when one does not.
        for sizes, message in (
            ((8191, 5, 211), "text must be few enough for a response of"),
            ((113, 65536, 211), "text must be few enough for a response of"),
            ((113, 5, 2333), "text must be few enough for tokens of"),
        ):
            with pytest.raises(tf.errors.InvalidArgumentError) as caught:
                function(**inputs(*sizes))
            assert message in caught.value.message
            assert str(sizes[0]) in caught.value.message
