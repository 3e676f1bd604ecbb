"""Tests of real exports over real gRPC, by the client and by its abusers."""

import contextlib
import os
import pathlib
import subprocess
import sys
import threading
import types

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

from official_lrm import serving
from official_lrm.data import ByteTokenizer
from official_lrm.serving.warmup import WARMUP_FILE

ROOT = pathlib.Path(__file__).resolve().parents[2]
SESSIONS = 9
WORKERS = 32
SAMPLING = {"temperature": 0.9, "top_k": 31, "top_p": 0.95}
STATES = ["carried", "resident"]

# How far an export may be from its model: a rounding of float32 that differs
# moves what is stored by one step of its dtype.
FORMATS = {
    "float32": ({}, 1e-5),
    "bfloat16": ({"memory_dtype": "bfloat16"}, 0.02),
    "int8 keys and values": (
        {"memory_dtype": "int8", "memory_format": "key_value"},
        0.02,
    ),
}


def joined(stream):
    return np.concatenate(list(stream)).tolist()


def export(folder, model, **kwargs):
    path = serving.export_saved_model(
        model, folder, state="resident", num_sessions=SESSIONS, **kwargs
    )
    return types.SimpleNamespace(folder=folder, path=path, model=model)


@pytest.fixture(scope="module")
def real(make_model, tmp_path_factory):
    """An export with both kinds of state and a tokenizer, and its model."""
    folder = str(tmp_path_factory.mktemp("real"))
    found = export(folder, make_model(256), tokenizer=ByteTokenizer())
    found.generator = serving.TextGenerator.from_model(found.model)
    return found


@pytest.fixture(scope="module")
def real_server(service, real):
    """Serves `real`; not to be stopped or changed."""
    with service.PredictionServer(
        {"lrm": real.folder}, workers=WORKERS
    ) as server:
        yield server


class Stub:
    """Calls without a client's checks; arrays or TensorProtos in."""

    def __init__(self, server):
        self._channel = grpc.insecure_channel(
            server.address, [("grpc.max_receive_message_length", -1)]
        )
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(
            self._channel
        )

    def close(self):
        self._channel.close()

    def __call__(self, signature, inputs):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "lrm"
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            if not isinstance(value, tensor_pb2.TensorProto):
                value = tf.make_tensor_proto(value)
            request.inputs[name].CopyFrom(value)
        outputs = self._stub.Predict(request, timeout=300).outputs
        return {name: tf.make_ndarray(proto) for name, proto in outputs.items()}

    def refused(self, signature, inputs, code="INVALID_ARGUMENT"):
        """Details of the error that a call ends with."""
        with pytest.raises(grpc.RpcError) as caught:
            self(signature, inputs)
        assert caught.value.code().name == code, caught.value.details()
        return caught.value.details()


@pytest.fixture(scope="module")
def stub(real_server):
    stub = Stub(real_server)
    yield stub
    stub.close()


def short(value):
    """An id of a parameter: an array's dtype and shape."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return value


def int32(*values):
    return np.array(values, "int32")


def int64(*values):
    return np.array(values, "int64")


def splat(value, dtype, *shape):
    """A tensor of any size in a few bytes."""
    return tf.make_tensor_proto(value, dtype, shape)


def fresh(model, lanes=1):
    return {
        name: np.array(value)
        for name, value in model.initial_memories(lanes).items()
    }


def last_logits(model, *segments):
    """Logits of the last of some segments of one lane."""
    memories = fresh(model)
    for segment in segments:
        logits, memories = model(int32(segment), memories)
    return np.array(logits)


def sampling_of(lanes=1, **values):
    defaults = {
        "max_new_tokens": 3,
        "temperature": 0.0,
        "top_k": 0,
        "top_p": 1.0,
        "seed": 0,
        "stop_token": -1,
    }
    dtypes = {"temperature": "float32", "top_p": "float32", "seed": "int64"}
    return {
        name: np.full([lanes], value, dtypes.get(name, "int32"))
        for name, value in {**defaults, **values}.items()
    }


class TestSessions:
    @pytest.mark.parametrize("state", STATES)
    def test_eight_at_once_are_each_its_own(
        self, client, connect, real_server, real, state, monkeypatch
    ):
        def arguments(index):
            prompt = np.random.default_rng(index).integers(0, 256, 3 + index)
            return prompt, {**SAMPLING, "seed": index, "max_new_tokens": 13}

        # Each call waits until all eight sessions are in the server.
        barrier = threading.Barrier(8, timeout=120)

        def around(request, answer):
            barrier.wait()
            return answer()

        one, found = connect(real_server, timeout=300), {}

        def run(index):
            session = client.open_session(one, state)
            prompt, sampling = arguments(index)
            found[index] = joined(
                session.stream(prompt, tokens_per_call=3, **sampling)
            )
            session.end()

        threads = [
            threading.Thread(target=run, args=[index]) for index in range(8)
        ]
        monkeypatch.setattr(real_server, "around", around)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({tuple(tokens) for tokens in found.values()}) == 8
        for index in range(8):
            prompt, sampling = arguments(index)
            expected = joined(real.generator.stream(prompt, **sampling))
            assert found[index] == expected

    def test_a_wrong_number_of_lanes_does_not_end_a_session(
        self, client, connect, real_server, real
    ):
        one = connect(real_server)
        for state in STATES:
            session = client.open_session(one, state)
            session.predict([[2, 3]])
            for _ in range(5):
                with pytest.raises(client.ClientError, match="as many lanes"):
                    session.predict([[5], [7]])
            np.testing.assert_allclose(
                session.predict([[5]]),
                last_logits(real.model, [2, 3], [5]),
                rtol=0,
                atol=1e-5,
            )
            session.end()

    def test_a_text_of_strings(self, client, connect, real_server, real):
        texts = [b"import ", "naïve 日本".encode()]
        sampling = sampling_of(2, max_new_tokens=11, temperature=0.9)
        sampling["seed"] = int64(13, 17)
        found = connect(real_server).call(
            "generate_text", {"text": texts, **sampling}
        )
        written = client.to_array(found["generated_text"])
        for text, seed, ours in zip(texts, (13, 17), written, strict=True):
            stream = real.generator.stream(
                list(text), 11, temperature=0.9, seed=seed
            )
            assert list(ours) == joined(stream)

    def test_the_clients_calls_are_those_that_were_warmed(
        self, client, connect, real_server, real, recorded
    ):
        # A server makes each set of outputs of a signature ready when it is
        # first asked for: seconds, which the warm-up is there for.
        file = os.path.join(real.path, "assets.extra", WARMUP_FILE)
        warm = {
            prediction_log_pb2.PredictionLog.FromString(
                record.numpy()
            ).predict_log.request.model_spec.signature_name
            for record in tf.data.TFRecordDataset(file)
        }
        one, called = connect(real_server), set()
        with recorded(real_server) as calls:
            prompt = client.tokenize(one, b"a prompt in pieces")
            client.TextDecoder(one).decode(prompt)
            for state in STATES:
                session = client.open_session(one, state)
                session.predict([[3, 5]])
                joined(session.stream(prompt, 5, prompt_tokens_per_call=4))
                session.end()
        for request, response in calls:
            name = request.model_spec.signature_name
            assert (
                response.outputs.keys() == one.signatures[name].outputs.keys()
            )
            called.add(name)
        assert called <= warm
        assert called == {
            "tokenize",
            "detokenize",
            "predict",
            "generate",
            "session_step",
            "session_generate",
            "session_end",
        }


class TestFormats:
    @pytest.fixture(scope="class", params=FORMATS)
    def kind(self, request):
        return request.param

    @pytest.fixture(scope="class")
    def formatted(self, kind, real, make_model, tmp_path_factory):
        if kind == "float32":
            return real
        model = make_model(23, spans=(5,))
        model = model.with_spans(model.spans, **FORMATS[kind][0])
        return export(str(tmp_path_factory.mktemp("formatted")), model)

    @pytest.fixture(scope="class")
    def format_server(self, formatted, real, real_server, service):
        if formatted is real:
            yield real_server
            return
        with service.PredictionServer({"lrm": formatted.folder}) as server:
            yield server

    @pytest.mark.parametrize("as_fields", [False, True])
    def test_segment_by_segment_it_is_the_model(
        self,
        client,
        connect,
        format_server,
        formatted,
        kind,
        as_fields,
        monkeypatch,
    ):
        model, atol = formatted.model, FORMATS[kind][1]
        one = connect(format_server)
        sessions = [client.open_session(one, state, 2) for state in STATES]
        memories = model.initial_memories(2)
        rng = np.random.default_rng(5)
        monkeypatch.setattr(format_server, "as_fields", as_fields)
        for length in (7, 1, 13):
            tokens = rng.integers(0, model.vocab_size, [2, length])
            exact, memories = model(tokens.astype("int32"), memories)
            carried, resident = (each.predict(tokens) for each in sessions)
            np.testing.assert_allclose(carried, exact, rtol=0, atol=atol)
            # Nothing is lost on the way.
            np.testing.assert_allclose(resident, carried, rtol=0, atol=1e-5)
        sessions[1].end()
        found = sessions[0].memories
        assert found.keys() == memories.keys()
        for name, expected in memories.items():
            dtype = tf.as_dtype(expected.dtype)
            assert found[name].dtype == dtype.as_datatype_enum
            assert bool(found[name].tensor_content) != as_fields
            np.testing.assert_allclose(
                tf.make_ndarray(found[name]).astype("float32"),
                np.array(expected).astype("float32"),
                rtol=0,
                atol=1 if dtype == tf.int8 else atol,
                err_msg=name,
            )

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_memories_that_are_no_numbers(
        self, format_server, formatted, value
    ):
        stub = Stub(format_server)
        memories = fresh(formatted.model)
        of_floats = [
            name
            for name, memory in memories.items()
            if memory.dtype.kind not in "iu"
        ]
        assert of_floats
        tokens = np.array([[3]], "int32")
        for name in of_floats:
            wrong = memories[name].copy()
            wrong[0, 2] = value
            details = stub.refused(
                "predict", {"tokens": tokens, **memories, name: wrong}
            )
            assert f"{name} must be finite" in details
        stub("predict", {"tokens": tokens, **memories})
        stub.close()


def test_a_restart_of_the_server(client, connect, service, real):
    prompt, sampling = [3, 5, 7], {**SAMPLING, "seed": 7, "tokens_per_call": 4}
    with service.PredictionServer({"lrm": real.folder}) as server:
        one = connect(server, timeout=120)
        whole, cut = (client.CarriedSession(one) for _ in range(2))
        resident = client.ResidentSession(one)
        expected = joined(whole.stream(prompt, 16, **sampling))
        stream = cut.stream(prompt, 16, **sampling)
        found = [*next(stream), *next(stream)]
        resident.predict([[3, 5]])
        server.stop()
        server.start()
        # Carried: not a byte is different.
        found += joined(stream)
        assert found == expected
        assert found == joined(real.generator.stream(prompt, 16, **sampling))
        assert cut.memories.keys() == fresh(real.model).keys()
        for name, proto in cut.memories.items():
            assert proto == whole.memories[name]
        # Resident: gone, and it says so.
        with pytest.raises(client.ClientError) as caught:
            resident.predict([[7]])
        assert caught.value.code == "FAILED_PRECONDITION"
        assert "session_id is unknown, was evicted or has ended" in str(
            caught.value
        )
        assert "restart it" in str(caught.value)
        resident.restart()
        np.testing.assert_allclose(
            resident.predict([[7, 2]]),
            last_logits(real.model, [7, 2]),
            rtol=0,
            atol=1e-5,
        )


@pytest.fixture
def undisturbed(client, connect, real_server, real):
    """A context that no session of others may notice."""

    @contextlib.contextmanager
    def around():
        one = connect(real_server)
        sessions = [client.open_session(one, state) for state in STATES]
        memories = fresh(real.model)
        for tokens in ([[3, 5, 7, 11]], [[13, 17]]):
            exact, memories = real.model(np.array(tokens, "int32"), memories)
            for session in sessions:
                np.testing.assert_allclose(
                    session.predict(tokens), exact, rtol=0, atol=1e-5
                )
            if tokens[0][0] == 3:
                yield
        sessions[1].end()

    return around


class TestCarriedAbuse:
    @pytest.fixture
    def inputs(self, real):
        return {"tokens": int32([3, 5]), **fresh(real.model)}

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("tokens", int32(3, 5)),
            ("tokens", int32([[3, 5]])),
            ("tokens", np.array(3, "int32")),
            ("tokens", int64([3, 5])),
            ("tokens", np.float32([[3, 5]])),
            ("tokens", np.array([[b"a", b"b"]])),
            ("tokens", int32([3, 256])),
            ("tokens", int32([-1, 5])),
            # Of other spans, widths, ranks, lanes and dtypes.
            ("memory_00", np.zeros([1, 4, 10], "float32")),
            ("memory_00", np.zeros([1, 6, 10], "float32")),
            ("memory_02", np.zeros([1, 2304, 10], "float32")),
            ("memory_02", np.zeros([1, 0, 10], "float32")),
            ("memory_00", np.zeros([1, 5, 11], "float32")),
            ("memory_00", np.zeros([5, 10], "float32")),
            ("memory_00", np.zeros([1, 5, 10, 1], "float32")),
            ("memory_00", np.zeros([2, 5, 10], "float32")),
            ("memory_00", np.zeros([0, 5, 10], "float32")),
            ("memory_00", np.zeros([1, 5, 10], "float64")),
            ("memory_02", np.zeros([1, 11, 10], "int8")),
            ("position", int32([0])),
            ("position", np.array(0, "int32")),
            ("position", int32(0, 0)),
            ("position", int32(-1)),
            ("position", int32(-(2**31))),
            ("position", int64(0)),
        ],
        ids=short,
    )
    def test_a_wrong_input(self, stub, inputs, undisturbed, name, value):
        with undisturbed():
            details = stub.refused("predict", {**inputs, name: value})
            assert name in details

    @pytest.mark.parametrize("name", ["tokens", "memory_02", "position"])
    def test_a_missing_input(self, stub, inputs, undisturbed, name):
        with undisturbed():
            del inputs[name]
            assert f"alias: {name}(" in stub.refused("predict", inputs)

    def test_a_memory_of_a_layer_that_has_none(self, stub, inputs, undisturbed):
        with undisturbed():
            inputs["memory_01"] = inputs["memory_00"]
            details = stub.refused("predict", inputs)
            assert "memory_01" in details
            assert "invalid name" in details

    def test_content_that_is_cut(self, stub, inputs, undisturbed):
        proto = tf.make_tensor_proto(inputs["memory_02"])
        proto.tensor_content = proto.tensor_content[:-1]
        with undisturbed():
            details = stub.refused("predict", {**inputs, "memory_02": proto})
            assert details == "tensor parsing error: memory_02"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("max_new_tokens", 2**31 - 1),
            ("max_new_tokens", -1),
            ("temperature", np.nan),
            ("top_k", -1),
            ("top_p", 0),
        ],
    )
    def test_wrong_sampling(self, stub, inputs, undisturbed, name, value):
        sampling = sampling_of(**{name: value})
        with undisturbed():
            details = stub.refused("generate", {**inputs, **sampling})
            assert f"{name} must " in details


class TestSizes:
    """Requests of a few bytes for what no message can hold."""

    TOO_MANY = "tokens must be few enough for a response of 2147483647 bytes"
    TOO_LONG = "tokens must be few enough for attention scores of 2147483647 by"

    def test_logits(self, stub, undisturbed):
        with undisturbed():
            tokens = splat(3, tf.int32, 1_400_000, 1)
            details = stub.refused("serving_default", {"tokens": tokens})
            assert self.TOO_MANY in details

    def test_a_long_segment(self, stub, undisturbed, real):
        tokens = splat(3, tf.int32, 1, 20_000)
        with undisturbed():
            for signature, inputs in (
                ("predict", fresh(real.model)),
                ("predict_top_k", fresh(real.model)),
                ("score", {**fresh(real.model), "targets": tokens}),
                (
                    "session_step",
                    {"session_id": int64(1), "position": int32(0)},
                ),
            ):
                details = stub.refused(signature, {"tokens": tokens, **inputs})
                assert self.TOO_LONG in details

    def test_many_texts(self, stub, undisturbed):
        lanes = 3_400_000
        sampling = {
            name: splat(value[0], value.dtype, lanes)
            for name, value in sampling_of().items()
        }
        text = splat(b"a", tf.string, 1)
        text.tensor_shape.dim[0].size = lanes
        with undisturbed():
            details = stub.refused("generate_text", {"text": text, **sampling})
            assert "few enough for a response of" in details


class TestResidentAbuse:
    @pytest.fixture
    def start(self, client, connect, real_server):
        """Starts a session of some tokens; (its id, its position)."""
        one, made = connect(real_server), []

        def start(tokens):
            session = client.ResidentSession(one)
            session.predict(tokens)
            made.append(session)
            return session._ids, session._position

        yield start
        for session in made:
            session.end()

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("tokens", int32(3, 5)),
            ("tokens", int32([3], [5])),
            ("tokens", int64([3, 5])),
            ("tokens", int32([3, 256])),
            ("session_id", int64([1])),
            ("session_id", int64(1, 2)),
            ("session_id", int32(1)),
            ("session_id", np.array([b"1"])),
            ("position", int32([4])),
            ("position", int32(4, 4)),
            ("position", int64(4)),
            ("position", int32(-1)),
            ("position", int32(-(2**31))),
        ],
        ids=short,
    )
    def test_a_wrong_input(self, stub, start, undisturbed, name, value):
        with undisturbed():
            session_id, position = start([[2, 3, 5, 7]])
            inputs = {
                "tokens": int32([3, 5]),
                "session_id": session_id,
                "position": position,
            }
            details = stub.refused("session_step", {**inputs, name: value})
            assert name in details
            stub("session_step", inputs)

    @pytest.mark.parametrize("name", ["tokens", "session_id", "position"])
    def test_a_missing_input(self, stub, undisturbed, name):
        inputs = {
            "tokens": int32([3]),
            "session_id": int64(1),
            "position": int32(0),
        }
        del inputs[name]
        with undisturbed():
            assert f"alias: {name}(" in stub.refused("session_step", inputs)

    def test_repeated_and_skipped_steps(self, stub, start, undisturbed, real):
        with undisturbed():
            session_id, position = start([[2, 3, 5]])
            inputs = {"tokens": int32([7, 11]), "session_id": session_id}
            stub("session_step", {**inputs, "position": position})
            for wrong in (3, 2, 4, 6, 7, 2**31 - 1):
                details = stub.refused(
                    "session_step", {**inputs, "position": int32(wrong)}
                )
                assert "position must be that of the session" in details
            logits = stub("session_step", {**inputs, "position": int32(5)})
            exact = last_logits(real.model, [2, 3, 5], [7, 11], [7, 11])
            np.testing.assert_allclose(
                logits["logits"], exact, rtol=0, atol=1e-5
            )

    def test_a_session_that_is_not_there(self, stub, start, undisturbed):
        with undisturbed():
            session_id, _ = start([[2, 3]])
            for signature in ("session_step", "session_generate"):
                inputs = {"tokens": int32([3]), "position": int32(2)}
                if signature == "session_generate":
                    inputs |= sampling_of()
                details = stub.refused(
                    signature,
                    {**inputs, "session_id": session_id + 1},
                    "FAILED_PRECONDITION",
                )
                assert "session_id is unknown" in details
            ids = np.stack([session_id[0], session_id[0] + 1])
            assert stub("session_end", {"session_id": ids})[
                "ended"
            ].tolist() == [True, False]
            details = stub.refused(
                "session_step",
                {
                    "tokens": int32([3]),
                    "position": int32(2),
                    "session_id": session_id,
                },
                "FAILED_PRECONDITION",
            )
            assert "session_id is unknown" in details

    def test_a_session_named_twice(self, stub, start, undisturbed):
        # What a batch that is filled with copies of a lane would be.
        with undisturbed():
            session_id, position = start([[2, 3]])
            details = stub.refused(
                "session_step",
                {
                    "tokens": int32([3], [3]),
                    "position": np.repeat(position, 2),
                    "session_id": np.repeat(session_id, 2),
                },
            )
            assert "session_id must name each session once" in details

    def test_more_sessions_than_there_are_slots(self, stub, undisturbed):
        count = SESSIONS + 1
        with undisturbed():
            details = stub.refused(
                "session_step",
                {
                    "tokens": np.full([count, 1], 3, "int32"),
                    "position": np.zeros([count], "int32"),
                    "session_id": np.arange(count),
                },
            )
            assert f"session_id must name at most the {SESSIONS}" in details

    def test_one_more_evicts_the_least_recently_used(
        self, client, connect, real_server, real
    ):
        one = connect(real_server)
        sessions = [client.ResidentSession(one) for _ in range(SESSIONS)]
        for index, session in enumerate(sessions):
            session.predict([[index, 3]])
        # The first one is used again, so the second is the oldest.
        sessions[0].predict([[5]])
        sessions.append(client.ResidentSession(one))
        sessions[-1].predict([[SESSIONS, 3]])
        evicted = sessions.pop(1)
        with pytest.raises(client.ClientError) as caught:
            evicted.predict([[5]])
        assert caught.value.code == "FAILED_PRECONDITION"
        assert "session_id is unknown, was evicted" in str(caught.value)
        indices = [0, *range(2, SESSIONS + 1)]
        for index, session in zip(indices, sessions, strict=True):
            read = [[index, 3], [5]] if index == 0 else [[index, 3]]
            exact = last_logits(real.model, *read, [7])
            np.testing.assert_allclose(
                session.predict([[7]]), exact, rtol=0, atol=1e-5
            )
            session.end()

    def test_of_a_hundred_that_race_one_succeeds(
        self, stub, start, real_server, undisturbed, real, monkeypatch
    ):
        # Of them 25 begin at once.
        barrier = threading.Barrier(25, timeout=120)

        def around(request, answer):
            barrier.wait()
            return answer()

        with undisturbed():
            session_id, position = start([[2, 3, 5]])
            outcomes = {}

            def write(index):
                try:
                    outcomes[index] = stub(
                        "session_step",
                        {
                            "tokens": int32([index, 7, index]),
                            "session_id": session_id,
                            "position": position,
                        },
                    )
                except grpc.RpcError as error:
                    outcomes[index] = error

            threads = [
                threading.Thread(target=write, args=[index])
                for index in range(100)
            ]
            with monkeypatch.context() as patch:
                patch.setattr(real_server, "around", around)
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            assert len(outcomes) == 100
            errors = [
                outcome
                for outcome in outcomes.values()
                if isinstance(outcome, grpc.RpcError)
            ]
            assert len(errors) == 99
            for error in errors:
                assert error.code().name == "INVALID_ARGUMENT"
                assert "that of the session" in error.details()
            (winner,) = (
                index
                for index, outcome in outcomes.items()
                if outcome not in errors
            )
            # Nothing of the others is in it.
            exact = last_logits(
                real.model, [2, 3, 5], [winner, 7, winner], [11]
            )
            found = stub(
                "session_step",
                {
                    "tokens": int32([11]),
                    "session_id": session_id,
                    "position": int32(6),
                },
            )
            np.testing.assert_allclose(
                found["logits"], exact, rtol=0, atol=1e-5
            )


class TestCommand:
    SAMPLING = (
        "--prompt=naïve 日本",
        "--max_new_tokens=41",
        "--temperature=0.7",
        "--top_p=0.9",
        "--seed=5",
    )

    @staticmethod
    def run(*command):
        result = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "PYTHONIOENCODING": "utf-8",
            },
            capture_output=True,
            encoding="utf-8",
            timeout=600,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    def test_it_writes_what_generate_writes(self, real_server, real):
        expected = self.run(
            "tools/generate.py", f"--model={real.folder}", *self.SAMPLING
        )
        assert expected.startswith("naïve 日本")
        assert len(expected.encode()) > 41
        for state in STATES:
            found = self.run(
                "export/client.py",
                f"--server={real_server.address}",
                f"--state={state}",
                *self.SAMPLING,
            )
            assert found == expected
