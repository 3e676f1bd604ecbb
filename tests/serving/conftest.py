"""Small models and their exports, made once."""

import types

import numpy as np
import pytest
import tensorflow as tf

import official_lrm as lrm
from official_lrm import serving
from official_lrm.data import (
    ByteTokenizer,
    SentencePieceTokenizer,
    SymbolTokenizer,
    WordTokenizer,
)

# V, D, N, H, F; tests add B = 3 lanes and segments of T.
SIZES = {
    "vocab_size": 23,
    "hidden_size": 10,
    "num_heads": 2,
    "head_size": 7,
    "inner_size": 17,
}
RETAINED = (128, 0, 2304)
SHORT = (5, 0, 11)
TEXTS = (
    b"the cat sat\non the mat",
    b"",
    b"\0\n\n n\xc3\xa9 the ",
    "日本 \u2581 the".encode(),
    b"\xff\xc3 cat",
)
# Kind -> ids of the model, more than those of the tokenizer, and the tokenizer.
TOKENIZERS = {
    "symbols": (29, lambda: SymbolTokenizer.learn([b"".join(TEXTS)])),
    "words": (11, lambda: WordTokenizer.learn([b"the cat sat\non the"])),
    "sentencepiece": (
        277,
        lambda: SentencePieceTokenizer.learn([b"the cat sat on the mat"], 276),
    ),
}


def make_model(spans=SHORT, weights_seed=2, **kwargs):
    model = lrm.TransformerXLLanguageModel(spans=spans, **{**SIZES, **kwargs})
    # Initial weights are so small that every token would be as likely.
    rng = np.random.default_rng(weights_seed)
    for weight in model.weights:
        value = rng.normal(size=weight.shape) * 0.4
        weight.assign(value + (weight.name == "gamma"))
    return model


@pytest.fixture(scope="session", name="make_model")
def make_model_fixture():
    return make_model


def make_export(folder, model, tokenizer=None):
    """The model, its export's path, and the export as TensorFlow loads it."""
    path = serving.export_saved_model(model, folder, tokenizer=tokenizer)
    return types.SimpleNamespace(
        model=model,
        tokenizer=tokenizer,
        path=path,
        loaded=tf.saved_model.load(path),
    )


@pytest.fixture(scope="session")
def retained(tmp_path_factory):
    """Of a model that retains memories in layers 0 and 2 only."""
    model = make_model(RETAINED)
    return make_export(str(tmp_path_factory.mktemp("retained")), model)


@pytest.fixture(scope="session")
def short(tmp_path_factory):
    """Of a model whose memories are soon full."""
    model = make_model(SHORT)
    return make_export(str(tmp_path_factory.mktemp("short")), model)


@pytest.fixture(scope="session")
def of_bytes(tmp_path_factory):
    """Of a model of bytes, with its tokenizer."""
    model = make_model(SHORT, vocab_size=256)
    folder = str(tmp_path_factory.mktemp("of_bytes"))
    return make_export(folder, model, ByteTokenizer())


@pytest.fixture(scope="session")
def make_of_text(of_bytes, tmp_path_factory):
    """Makes the export of a kind of tokenizer, once: bytes, symbols …"""
    made = {"bytes": of_bytes}

    def make(kind):
        if kind not in made:
            vocab_size, make_tokenizer = TOKENIZERS[kind]
            made[kind] = make_export(
                str(tmp_path_factory.mktemp(kind)),
                make_model((5,), vocab_size=vocab_size),
                make_tokenizer(),
            )
        return made[kind]

    return make


@pytest.fixture(scope="session")
def texts():
    """Texts of all that there is, which `symbols` has learnt from."""
    return list(TEXTS)


@pytest.fixture(scope="session")
def open_session():
    """SignatureDefs as a server reads them, and a call of one in a session."""
    opened, sessions = {}, []

    def make(path):
        graph = tf.Graph()
        with graph.as_default():
            session = tf.compat.v1.Session()
            sessions.append(session)
            definitions = tf.compat.v1.saved_model.loader.load(
                session, ["serve"], path
            ).signature_def

        def call(name, inputs):
            definition = definitions[name]
            assert inputs.keys() == definition.inputs.keys()
            return session.run(
                {key: info.name for key, info in definition.outputs.items()},
                {
                    definition.inputs[key].name: value
                    for key, value in inputs.items()
                },
            )

        return types.SimpleNamespace(signature_def=definitions, call=call)

    def open_once(export):
        if export.path not in opened:
            opened[export.path] = make(export.path)
        return opened[export.path]

    yield open_once
    for session in sessions:
        session.close()


@pytest.fixture(params=["loaded", "session"])
def call_export(request, open_session):
    """Calls a signature of an export, through either of two runtimes."""

    def call(export, name, inputs):
        inputs = {key: np.array(value) for key, value in inputs.items()}
        if request.param == "session":
            return open_session(export).call(name, inputs)
        inputs = {key: tf.constant(value) for key, value in inputs.items()}
        outputs = export.loaded.signatures[name](**inputs)
        return {key: value.numpy() for key, value in outputs.items()}

    return call


@pytest.fixture
def make_tokens():
    def make(batch_size, length, seed=3):
        rng = np.random.default_rng(seed)
        shape = (batch_size, length)
        return rng.integers(0, SIZES["vocab_size"], shape, dtype="int32")

    return make


@pytest.fixture
def in_the_middle(make_tokens):
    """Memories of 3 lanes that have seen 0, 3 and 2309 tokens."""

    def make(model):
        fresh = model.initial_memories(1)
        lanes = [fresh]
        for length in (3, 2309):
            memories = fresh
            tokens = make_tokens(1, length, seed=length)
            for start in range(0, length, 577):
                _, memories = model(tokens[:, start : start + 577], memories)
            lanes.append(memories)
        return {
            name: np.concatenate([np.array(lane[name]) for lane in lanes])
            for name in fresh
        }

    return make


@pytest.fixture
def assert_memories_equal():
    """Compares memories, exactly where no tolerance is given."""

    def check(memories, expected, atol=0):
        assert memories.keys() == expected.keys()
        for name, value in expected.items():
            value, other = np.array(value), np.array(memories[name])
            assert other.shape == value.shape
            assert other.dtype == value.dtype
            np.testing.assert_allclose(
                other.astype("float64"),
                value.astype("float64"),
                rtol=0,
                atol=atol,
                err_msg=name,
            )

    return check
