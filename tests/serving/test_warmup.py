"""Tests of the requests that a server runs before a model is ready."""

import concurrent.futures
import importlib.util
import os
import pathlib
import types

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from official_lrm import serving
from official_lrm.data import (
    ByteTokenizer,
    SentencePieceTokenizer,
    SymbolTokenizer,
    WordTokenizer,
)
from official_lrm.serving.warmup import WARMUP_FILE, write_warmup

ROOT = pathlib.Path(__file__).resolve().parents[2]

# State and sessions; what memories hold; the tokenizer.
EXPORTS = {
    "carried, bfloat16, bytes": (
        {},
        {"memory_dtype": "bfloat16"},
        ByteTokenizer(23),
    ),
    # With one slot each request evicts the session before.
    "resident, int8 keys and values": (
        {"state": "resident", "num_sessions": 1},
        {"memory_dtype": "int8", "memory_format": "key_value"},
        None,
    ),
    "resident, bytes": (
        {"state": "resident", "num_sessions": 4},
        {},
        ByteTokenizer(23),
    ),
}
TOKENIZERS = {
    "bytes": ByteTokenizer,
    "symbols": lambda: SymbolTokenizer.learn([b"\n the mat"]),
    "words": lambda: WordTokenizer.learn([b"the cat sat\non the mat"]),
    "sentencepiece": lambda: SentencePieceTokenizer.learn(
        [b"the cat sat on the mat"], 276
    ),
}


@pytest.fixture(scope="module")
def service():
    path = ROOT / "tools" / "prediction_service.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_requests(file):
    """The requests of a warm-up file."""
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(file))
    ]
    assert {log.WhichOneof("log_type") for log in logs} == {"predict_log"}
    return [log.predict_log.request for log in logs]


@pytest.fixture(scope="module", params=EXPORTS)
def export(request, make_model, service, tmp_path_factory):
    state, memory, tokenizer = EXPORTS[request.param]
    model = make_model((5,))
    path = serving.export_saved_model(
        model.with_spans(model.spans, **memory),
        str(tmp_path_factory.mktemp("warm")),
        tokenizer=tokenizer,
        **state,
    )
    file = os.path.join(path, "assets.extra", WARMUP_FILE)
    loaded = service.LoadedModel(path)
    yield types.SimpleNamespace(
        model=loaded,
        file=file,
        requests=read_requests(file),
        signatures={
            name: signature
            for name, signature in loaded.signatures.items()
            if not name.startswith("__")
        },
        is_resident="state" in state,
    )
    loaded.close()


def starts_session(request):
    return {"session_id", "position"} <= request.inputs.keys()


class TestFile:
    def test_each_signature_once(self, export):
        names = [
            request.model_spec.signature_name for request in export.requests
        ]
        assert sorted(names) == sorted(export.signatures)
        assert "predict" in names
        assert ("session_step" in names) == export.is_resident

    def test_a_server_takes_it(self, export):
        assert len(export.requests) <= 1000
        assert os.path.getsize(export.file) < 4096

    def test_exactly_the_inputs_that_there_are(self, export):
        for request in export.requests:
            signature = export.signatures[request.model_spec.signature_name]
            assert request.inputs.keys() == signature.inputs.keys()
            for name, info in signature.inputs.items():
                assert request.inputs[name].dtype == info.dtype

    def test_all_outputs(self, export):
        # Another set of them would be another graph to make ready.
        assert not any(request.output_filter for request in export.requests)

    def test_each_starts_a_session_of_its_own(self, export):
        ids = [
            tf.make_ndarray(request.inputs["session_id"]).tolist()
            for request in export.requests
            if starts_session(request)
        ]
        assert ids == ([[0], [1], [2]] if export.is_resident else [])

    def test_the_last_one_ends_them(self, export):
        ends = [
            request
            for request in export.requests
            if request.model_spec.signature_name == "session_end"
        ]
        assert len(ends) == export.is_resident
        if ends:
            assert ends == export.requests[-1:]
            ids = tf.make_ndarray(ends[0].inputs["session_id"])
            assert ids.tolist() == [0, 1, 2]


class TestRunning:
    @pytest.fixture(scope="class")
    def warm(self, export):
        """The export after its warm-up; each request's outputs, by name."""

        def run(request):
            name = request.model_spec.signature_name
            outputs = export.model.run(name, request.inputs, ())
            return name, outputs

        # As a server does with several threads for it; which also takes half
        # the time.
        *most, last = export.requests
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            return dict([*threads.map(run, most), run(last)])

    def test_none_is_refused(self, export, warm):
        assert warm.keys() == export.signatures.keys()
        for name, outputs in warm.items():
            assert outputs.keys() == export.signatures[name].outputs.keys()

    def test_the_whole_of_generating_runs(self, warm):
        for name, outputs in warm.items():
            if "generate" in name:
                # The loop's body too.
                assert outputs["generated_lengths"].tolist() == [2]

    def test_no_session_is_left(self, export, warm, service):
        assert ("session_end" in warm) == export.is_resident
        if not export.is_resident:
            return
        ended = warm["session_end"]["ended"]
        # A slot holds one of them.
        assert ended.any()
        inputs = {"session_id": tf.make_tensor_proto([0, 1, 2], tf.int64)}
        again = export.model.run("session_end", inputs, ())["ended"]
        assert not again.any()
        step = {
            "tokens": tf.make_tensor_proto([[0]], tf.int32),
            "position": tf.make_tensor_proto([1], tf.int32),
        }
        for index in range(3):
            step["session_id"] = tf.make_tensor_proto([index], tf.int64)
            with pytest.raises(service.ServiceError, match="session_id is unk"):
                export.model.run("session_step", step, ())


def signature_of(**specs):
    """A signature of these inputs."""
    function = tf.function(lambda **inputs: inputs, autograph=False)
    return function.get_concrete_function(
        **{
            name: tf.TensorSpec(shape, dtype, name)
            for name, (shape, dtype) in specs.items()
        }
    )


class TestInputs:
    @pytest.mark.parametrize("kind", TOKENIZERS)
    def test_a_text_has_a_token(self, kind, tmp_path):
        tokenizer = TOKENIZERS[kind]()
        signature = signature_of(text=([None], tf.string))
        write_warmup(str(tmp_path), {"tokenize": signature}, tokenizer)
        (request,) = read_requests(tmp_path / WARMUP_FILE)
        (text,) = tf.make_ndarray(request.inputs["text"])
        assert tokenizer.encode(text).size > 0

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
    def test_memories_of_any_length_take_a_few_bytes(self, dtype, tmp_path):
        shape = (None, 6000, 1024)
        specs = {f"memory_{layer:02d}": (shape, dtype) for layer in range(24)}
        signature = signature_of(**specs)
        write_warmup(str(tmp_path), {"predict": signature})
        assert (tmp_path / WARMUP_FILE).stat().st_size < 2048
        (request,) = read_requests(tmp_path / WARMUP_FILE)
        assert request.inputs.keys() == specs.keys()
        zeros = tf.make_ndarray(request.inputs["memory_23"])
        assert zeros.shape == (1, *shape[1:])
        assert zeros.dtype == tf.as_dtype(dtype).as_numpy_dtype
        assert not np.any(zeros)
