"""Tests of the signatures between text and tokens."""

import functools
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.serving import TextGenerator

ROOT = pathlib.Path(__file__).resolve().parents[2]
KINDS = ("bytes", "symbols", "words", "sentencepiece")
TOKENS = {"tokens": ((None, None), "int32"), "lengths": ((None,), "int32")}
TEXT = {"text": ((None,), "string")}
DOCUMENTED = {
    "tokenize": (TEXT, TOKENS),
    "detokenize": (TOKENS, TEXT),
    "generate_text": (
        {
            **TEXT,
            "max_new_tokens": ((None,), "int32"),
            "temperature": ((None,), "float32"),
            "top_k": ((None,), "int32"),
            "top_p": ((None,), "float32"),
            "seed": ((None,), "int64"),
            "stop_token": ((None,), "int32"),
        },
        {
            "generated_text": ((None,), "string"),
            "generated_lengths": ((None,), "int32"),
        },
    ),
}
# Those of a model without a tokenizer; see test_signatures.py.
OTHERS = {
    "serving_default",
    "predict",
    "predict_ragged",
    "predict_top_k",
    "score",
    "generate",
}


@pytest.fixture(scope="module", params=KINDS)
def exported(request, make_of_text):
    """The export of a model with each tokenizer."""
    return make_of_text(request.param)


@pytest.fixture
def tokenizer(exported):
    return exported.tokenizer


@pytest.fixture
def call(call_export, exported):
    """Calls a signature of `exported`, through either of two runtimes."""
    return functools.partial(call_export, exported)


def test_names_and_types_are_as_documented(exported, open_session):
    definitions = open_session(exported).signature_def
    names = set(definitions) - {"__saved_model_init_op"}
    assert names == OTHERS | DOCUMENTED.keys()
    for name, expected in DOCUMENTED.items():
        found = tuple(
            {
                key: (
                    tuple(
                        None if dim.size == -1 else dim.size
                        for dim in info.tensor_shape.dim
                    ),
                    tf.dtypes.as_dtype(info.dtype).name,
                )
                for key, info in infos.items()
            }
            for infos in (definitions[name].inputs, definitions[name].outputs)
        )
        assert found == expected


def test_they_are_the_tokenizer(tokenizer, texts, call):
    outputs = call("tokenize", {"text": np.array(texts, object)})
    expected = [tokenizer.encode(text).tolist() for text in texts]
    lengths = [len(ids) for ids in expected]
    assert outputs["lengths"].tolist() == lengths
    assert outputs["tokens"].shape == (len(texts), max(lengths))
    for ids, padded in zip(expected, outputs["tokens"].tolist(), strict=True):
        assert padded == ids + [-1] * (max(lengths) - len(ids))
    # A response is a request.
    text = call("detokenize", outputs)["text"]
    assert text.tolist() == [tokenizer.decode(ids) for ids in expected]


def test_no_lanes_and_no_tokens(call):
    outputs = call("tokenize", {"text": np.array([], object)})
    assert outputs["tokens"].shape == (0, 0)
    assert outputs["lengths"].shape == (0,)
    outputs = call("tokenize", {"text": np.array([b"", b""], object)})
    assert outputs["tokens"].shape == (2, 0)
    assert call("detokenize", outputs)["text"].tolist() == [b"", b""]


@pytest.mark.parametrize("padding", [-1, -7, 10**9])
def test_what_is_behind_the_lengths_does_not_matter(tokenizer, call, padding):
    ids = tokenizer.encode(b"the cat").tolist()
    inputs = {
        "tokens": np.array([[*ids, padding], [ids[0], *[padding] * len(ids)]]),
        "lengths": np.array([len(ids), 1]),
    }
    inputs = {name: value.astype("int32") for name, value in inputs.items()}
    text = call("detokenize", inputs)["text"].tolist()
    assert text == [tokenizer.decode(ids), tokenizer.decode(ids[:1])]


class TestRefusals:
    @pytest.mark.parametrize(
        ("lengths", "expected"),
        [
            ([3, -1], "lengths must be from 0 to"),
            ([0, 4], "lengths must be from 0 to"),
            ([3], "lengths must have as many lanes as tokens"),
            ([3, 3, 3], "lengths must have as many lanes as tokens"),
        ],
    )
    def test_lengths(self, call, lengths, expected):
        inputs = {
            "tokens": np.zeros([2, 3], "int32"),
            "lengths": np.array(lengths, "int32"),
        }
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            call("detokenize", inputs)
        assert expected in caught.value.message

    def test_tokens_that_stand_for_nothing(self, exported, call):
        vocab_size = exported.model.vocab_size
        tokenizer = exported.tokenizer
        for token in {-1, tokenizer.vocab_size, vocab_size}:
            inputs = {
                "tokens": np.array([[0, token]], "int32"),
                "lengths": np.array([2], "int32"),
            }
            with pytest.raises(tf.errors.InvalidArgumentError) as caught:
                call("detokenize", inputs)
            last = tokenizer.vocab_size - 1
            assert f"ids must be from 0 to {last};" in caught.value.message

    def test_bytes_that_have_no_id(self, tokenizer, call):
        text = np.array([b"the cat", b"x"], object)
        if tokenizer.type != "symbols":
            call("tokenize", {"text": text})
            return
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            call("tokenize", {"text": text})
        assert "text must hold the" in caught.value.message
        assert f"{ord('x')}" in caught.value.message

    def test_more_padding_than_a_message_holds(self, call):
        # Given a short request whose lanes are all as wide as the longest,
        texts = [b"the " * 10_007] + [b"t"] * 99_991
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            call("tokenize", {"text": np.array(texts, object)})
        # then no tokens are made for it, 4 GB and more.
        assert "text must be few enough for tokens of" in caught.value.message
        assert "99992" in caught.value.message

    def test_padding_is_no_token_of_a_model(self, call):
        outputs = call("tokenize", {"text": np.array([b"cat", b""], object)})
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            call("serving_default", {"tokens": outputs["tokens"]})
        assert "tokens must be from 0 to" in caught.value.message


def test_a_process_that_only_loads_it_knows_its_operations(exported, tmp_path):
    """TensorFlow knows those of TensorFlow Text only once that is there."""
    tokenizer = exported.tokenizer
    if tokenizer.type != "sentencepiece":
        # They are TensorFlow's own, so the other tests have shown it.
        assert "tensorflow_text" not in type(tokenizer).__module__
        return
    program = (
        "import json, sys\n"
        "from official_lrm.serving import TextGenerator\n"
        "generator = TextGenerator.from_saved_model(sys.argv[1])\n"
        "written = generator.stream([0, 1], max_new_tokens=3, temperature=0)\n"
        "print(json.dumps([t.tolist() for t in written]))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, exported.path],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr
    (tokens,) = json.loads(run.stdout)
    assert len(tokens) == 3


def test_without_tensorflow_text_a_load_says_what_is_needed(
    exported, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    if exported.tokenizer.type != "sentencepiece":
        TextGenerator.from_saved_model(exported.path)
        return
    with pytest.raises(ImportError, match="^a SentencePiece tokenizer needs"):
        TextGenerator.from_saved_model(exported.path)
