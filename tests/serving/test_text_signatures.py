"""Tests of the signatures between text and tokens."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.data import (
    ByteTokenizer,
    SentencePieceTokenizer,
    SymbolTokenizer,
    WordTokenizer,
)
from official_lrm.serving import TextGenerator, export_saved_model

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXTS = [
    b"the cat sat\non the mat",
    b"",
    b"\0\n\n n\xc3\xa9 the ",
    "日本 \u2581 the".encode(),
    b"\xff\xc3 cat",
]
# Each of fewer ids than the model, but for the bytes.
TOKENIZERS = {
    "bytes": ByteTokenizer,
    "symbols": lambda: SymbolTokenizer.learn([b"".join(TEXTS)]),
    "words": lambda: WordTokenizer.learn([b"the cat sat\non the"]),
    "sentencepiece": lambda: SentencePieceTokenizer.learn(
        [b"the cat sat on the mat"], 276
    ),
}
VOCAB_SIZE = {"sentencepiece": 277}
TOKENS = {"tokens": ((None, None), "int32"), "lengths": ((None,), "int32")}
TEXT = {"text": ((None,), "string")}
DOCUMENTED = {"tokenize": (TEXT, TOKENS), "detokenize": (TOKENS, TEXT)}


@pytest.fixture(scope="module", params=TOKENIZERS)
def exported(request, make_model, tmp_path_factory):
    """(model's vocab_size, tokenizer, path of the export)."""
    tokenizer = TOKENIZERS[request.param]()
    vocab_size = VOCAB_SIZE.get(request.param, 256)
    model = make_model((5,), vocab_size=vocab_size)
    folder = str(tmp_path_factory.mktemp(request.param))
    return (
        vocab_size,
        tokenizer,
        export_saved_model(model, folder, tokenizer=tokenizer),
    )


@pytest.fixture(scope="module")
def loaded(exported):
    return tf.saved_model.load(exported[2])


@pytest.fixture(scope="module")
def session(exported):
    """(signatures as a server reads them, a function that runs them)."""
    graph = tf.Graph()
    with graph.as_default():
        session = tf.compat.v1.Session()
        definitions = tf.compat.v1.saved_model.loader.load(
            session, ["serve"], exported[2]
        ).signature_def

    def call(name, inputs):
        definition = definitions[name]
        return session.run(
            {key: info.name for key, info in definition.outputs.items()},
            {
                definition.inputs[key].name: value
                for key, value in inputs.items()
            },
        )

    yield definitions, call
    session.close()


@pytest.fixture(params=["loaded", "session"])
def call(request, loaded, session):
    """Calls a signature through either of two runtimes."""
    if request.param == "session":
        return session[1]

    def call_loaded(name, inputs):
        inputs = {key: tf.constant(value) for key, value in inputs.items()}
        outputs = loaded.signatures[name](**inputs)
        return {key: value.numpy() for key, value in outputs.items()}

    return call_loaded


def test_names_and_types_are_as_documented(session):
    definitions = session[0]
    others = {"serving_default", "predict", "score", "generate"}
    names = set(definitions) - {"__saved_model_init_op"}
    assert names == others | DOCUMENTED.keys()
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


def test_they_are_the_tokenizer(exported, call):
    _, tokenizer, _ = exported
    outputs = call("tokenize", {"text": np.array(TEXTS, object)})
    expected = [tokenizer.encode(text).tolist() for text in TEXTS]
    lengths = [len(ids) for ids in expected]
    assert outputs["lengths"].tolist() == lengths
    assert outputs["tokens"].shape == (len(TEXTS), max(lengths))
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
def test_what_is_behind_the_lengths_does_not_matter(exported, call, padding):
    _, tokenizer, _ = exported
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
        vocab_size, tokenizer, _ = exported
        for token in {-1, tokenizer.vocab_size, vocab_size}:
            inputs = {
                "tokens": np.array([[0, token]], "int32"),
                "lengths": np.array([2], "int32"),
            }
            with pytest.raises(tf.errors.InvalidArgumentError) as caught:
                call("detokenize", inputs)
            last = tokenizer.vocab_size - 1
            assert f"ids must be from 0 to {last};" in caught.value.message

    def test_bytes_that_have_no_id(self, exported, call):
        _, tokenizer, _ = exported
        text = np.array([b"the cat", b"x"], object)
        if tokenizer.type != "symbols":
            call("tokenize", {"text": text})
            return
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            call("tokenize", {"text": text})
        assert "text must hold the" in caught.value.message
        assert f"{ord('x')}" in caught.value.message

    def test_padding_is_no_token_of_a_model(self, call):
        outputs = call("tokenize", {"text": np.array([b"cat", b""], object)})
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            call("serving_default", {"tokens": outputs["tokens"]})
        assert "tokens must be from 0 to" in caught.value.message


def test_a_process_that_only_loads_it_knows_its_operations(exported, tmp_path):
    """TensorFlow knows those of TensorFlow Text only once that is there."""
    _, tokenizer, path = exported
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
        [sys.executable, "-c", program, path],
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
    if exported[1].type != "sentencepiece":
        TextGenerator.from_saved_model(exported[2])
        return
    with pytest.raises(ImportError, match="^a SentencePiece tokenizer needs"):
        TextGenerator.from_saved_model(exported[2])
