"""How fast an export answers: in the process, from C++, over gRPC.

The rows of a table take turns, so that what else the machine does hits all of
them; but for the C++ session, which is timed right after the others of its
spans, and the 24-layer models, which do not fit into memory together.
"""

import contextlib
import json
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

import keras
import numpy as np
import saved_model_runner
import tensorflow as tf
from child_process import ChildProcess
from machine_ceilings import memory_read_rate

import official_lrm as lrm
from official_lrm import serving
from official_lrm.serving import checks

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "export"))

import client_calls  # noqa: E402
import client_sessions  # noqa: E402

#: 12 layers, D 512, 8 x 64, F 2048.
SIZES_12 = {
    "vocab_size": 204,
    "hidden_size": 512,
    "num_heads": 8,
    "head_size": 64,
    "inner_size": 2048,
}
#: The paper's model of enwik8: 24 layers.
SIZES_24 = {
    "vocab_size": 204,
    "hidden_size": 1024,
    "num_heads": 8,
    "head_size": 128,
    "inner_size": 3072,
}
LONG, SHORT = 2304, 128


def spans_12():
    """Name -> spans of the 12 layers."""
    return {
        "full memory": lrm.MemorySpans([LONG] * 12),
        "2 long": lrm.MemorySpans.arrange(12, 2, long=LONG, short=SHORT),
    }


def decode_rows(dtypes, tokens, rounds, peer_python=None):
    """Milliseconds a token of `generate`, beside a peer and the floor.

    Args:
        dtypes: "float32", "bfloat16": of weights, arithmetic and memories.
        tokens: that one call generates.
        rounds: calls of each row; the median counts.
        peer_python: interpreter that has transformers, or None.

    Yields:
        Lines of text.
    """
    sizes = SIZES_12
    with contextlib.ExitStack() as stack:
        rows = {}
        for dtype in dtypes:
            keras.utils.set_random_seed(1)
            for name, spans in spans_12().items():
                model = lrm.TransformerXLLanguageModel(
                    spans=spans,
                    **sizes,
                    dtype=dtype,
                    memory_format="key_value",
                )
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                path = _export(model, folder, ["generate"])
                rows[dtype, name] = _InProcess(path, tokens), _floor(model)
                yield f"# exported {dtype}, {name}"
        peer = None
        if peer_python:
            peer = stack.enter_context(_Peer(peer_python, sizes, LONG))
            yield f"# {peer.first_line}"
        times = {row: [] for row in [*rows, "peer"]}
        rates = []
        for _ in range(rounds):
            for row, (call, _) in rows.items():
                times[row].append(call() / tokens)
            if peer:
                times["peer"].append(peer.seconds_per_token())
            rates.append(memory_read_rate())
        rate = statistics.median(rates)
        yield f"reading from memory: {rate / 1e9:.1f} GB/s"
        slowest = None
        if peer:
            slowest = statistics.median(times["peer"])
            yield _row("peer, float32, full memory", slowest, slowest, None)
        for row, (_, size) in rows.items():
            seconds = statistics.median(times[row])
            yield _row(", ".join(row), seconds, slowest, size / rate)


def serve_rows(export_flags, tokens, calls):
    """Latency per token of four ways to call, full memory and 2 long.

    Args:
        export_flags: memory_format, memory_dtype and dtype of the exports.
        tokens: that one call generates.
        calls: of each way.

    Yields:
        Lines of text.
    """
    yield (
        f"{'':34} {'p50':>8} {'p99':>8} {'tokens/s':>9} {'sent':>11} "
        f"{'received':>11}"
    )
    with tempfile.TemporaryDirectory() as scratch:
        runner = None
        if saved_model_runner.find_compiler():
            runner = saved_model_runner.compile_runner(scratch)
        for name, spans in spans_12().items():
            keras.utils.set_random_seed(1)
            model = lrm.TransformerXLLanguageModel(
                spans=spans, **SIZES_12, **export_flags
            )
            folder = os.path.join(scratch, name.replace(" ", "_"))
            path = serving.export_saved_model(
                model, folder, state="resident", num_sessions=2
            )
            ways = {"in the process": _InProcess(path, tokens)}
            with _Server(folder) as server, contextlib.ExitStack() as stack:
                for state in ("carried", "resident"):
                    remote = _Remote(server, state, tokens)
                    stack.callback(remote.close)
                    ways[f"gRPC, {state}"] = remote
                times = {way: [] for way in ways}
                for _ in range(calls):
                    for way, call in ways.items():
                        times[way].append(call())
                if runner:
                    times["C++ session"] = _in_cpp(runner, path, tokens, calls)
                for way in (
                    "in the process",
                    "C++ session",
                    "gRPC, carried",
                    "gRPC, resident",
                ):
                    if way in times:
                        call = ways.get(way)
                        yield _latency_row(
                            f"{name}, {way}",
                            times[way],
                            tokens,
                            getattr(call, "bytes", None),
                        )
            shutil.rmtree(folder)


def wire_rows(calls):
    """Bytes and round trips of the 24-layer model, one token a request.

    Args:
        calls: round trips of each row; the median counts.

    Yields:
        Lines of text.
    """
    full = lrm.MemorySpans([LONG] * 24)
    four = lrm.MemorySpans.arrange(24, 4, long=LONG, short=SHORT)
    rows = {
        "24 long": (full, None),
        "4 long": (four, None),
        "4 long, bfloat16": (four, "bfloat16"),
        "4 long, int8": (four, "int8"),
    }
    yield (
        f"{'':18} {'sent':>12} {'received':>12} {'round trip':>11} "
        f"{'of it the model':>16}"
    )
    keras.utils.set_random_seed(1)
    model = lrm.TransformerXLLanguageModel(spans=full, **SIZES_24)
    for name, (spans, dtype) in rows.items():
        with tempfile.TemporaryDirectory() as folder:
            path = _export(
                model.with_spans(spans, memory_dtype=dtype),
                os.path.join(folder, "export"),
                ["predict"],
            )
            with _Server(os.path.dirname(path)) as server:
                client = client_calls.Client(server.address, timeout=600)
                with client:
                    session = client_sessions.CarriedSession(client)
                    for _ in range(calls + 2):
                        session.predict([[1]])
                    made = list(client.calls)[-calls:]
            local = _local_predict(path, calls)
        yield (
            f"{name:18} {made[-1].request_bytes:12,} "
            f"{made[-1].response_bytes:12,} "
            f"{statistics.median(x.seconds for x in made):9.2f} s "
            f"{local:14.2f} s"
        )


def _export(model, folder, names):
    # Only some signatures: the others take their time too.
    path = os.path.join(folder, "1")
    module = serving.ServingModule(model)
    tf.saved_model.save(module, path, signatures=module.signatures(names))
    return path


def _sampling(tokens):
    return {
        "max_new_tokens": np.array([tokens], "int32"),
        "temperature": np.array([1], "float32"),
        "top_k": np.array([0], "int32"),
        "top_p": np.array([1], "float32"),
        "seed": np.array([7], "int64"),
        "stop_token": np.array([-1], "int32"),
    }


class _InProcess:
    """Calls `generate`, memories handed from call to call."""

    def __init__(self, path, tokens):
        self._loaded = tf.saved_model.load(path)
        self._generate = self._loaded.signatures["generate"]
        self._sampling = {
            name: tf.constant(value)
            for name, value in _sampling(tokens).items()
        }
        self._memories = _fresh_memories(self._generate)
        self()

    def __call__(self):
        start = time.perf_counter()
        outputs = dict(
            self._generate(
                tokens=tf.constant([[1]]), **self._sampling, **self._memories
            )
        )
        outputs.pop("generated").numpy()
        seconds = time.perf_counter() - start
        outputs.pop("generated_lengths")
        self._memories = outputs
        return seconds


class _Remote:
    """Calls it over gRPC, with the client."""

    def __init__(self, server, state, tokens):
        self._client = client_calls.Client(server.address, timeout=600)
        self._session = client_sessions.open_session(self._client, state)
        self._tokens = tokens
        self()

    def __call__(self):
        start = time.perf_counter()
        self._session.generate([[1]], self._tokens, seed=7)
        return time.perf_counter() - start

    def close(self):
        self._client.close()

    @property
    def bytes(self):
        """(sent, received) of a call."""
        call = self._client.calls[-1]
        return call.request_bytes, call.response_bytes


class _Server(ChildProcess):
    """A PredictionService in a process of its own."""

    def __init__(self, folder):
        super().__init__(
            sys.executable, ROOT / "tools" / "prediction_service.py", folder
        )
        if not self.first_line:
            raise RuntimeError(f"no server of {folder} could be started.")
        self.address = f"localhost:{self.first_line}"


class _Peer(ChildProcess):
    """Decodes with Hugging Face's TransfoXL, in a process of its own."""

    def __init__(self, python, sizes, span):
        super().__init__(
            python,
            ROOT / "tools" / "peer_decoding.py",
            json.dumps({**sizes, "num_layers": 12, "span": span}),
        )
        if not self.first_line:
            raise ValueError(
                f"--peer_python must be an interpreter with torch and "
                f"transformers 4.35; got {python}."
            )

    def seconds_per_token(self):
        return float(self.ask())


def _fresh_memories(signature):
    # Of one lane: what goes in and comes out, as zeros.
    return {
        name: tf.zeros([size or 1 for size in spec.shape], spec.dtype)
        for name, spec in signature.structured_input_signature[1].items()
        if name in signature.structured_outputs
    }


def _in_cpp(runner, path, tokens, calls):
    # The first call prepares the session and starts the memories.
    loaded = tf.saved_model.load(path)
    memories = _fresh_memories(loaded.signatures["generate"])
    memories = {name: value.numpy() for name, value in memories.items()}
    inputs = {"tokens": np.array([[1]], "int32"), **_sampling(tokens)}
    script = [saved_model_runner.Call("generate", {**inputs, **memories})]
    script += [saved_model_runner.Call("generate", inputs)] * calls
    run = saved_model_runner.run_calls(runner, path, script)
    return [result.microseconds / 1e6 for result in run.results[1:]]


def _local_predict(path, calls):
    # Median seconds of `predict` without a server.
    predict = tf.saved_model.load(path).signatures["predict"]
    memories = _fresh_memories(predict)
    times = []
    for _ in range(calls + 1):
        start = time.perf_counter()
        memories = dict(predict(tokens=tf.constant([[1]]), **memories))
        memories.pop("logits").numpy()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _floor(model):
    # Bytes that a token has to read: weights, keys and values, each once. Of
    # the embedding, which is the softmax's table too, all rows.
    weights = sum(
        int(np.prod(weight.shape)) * tf.as_dtype(weight.dtype).size
        for weight in model.weights
    )
    return weights + checks.state_bytes(model)


def _row(name, seconds, slowest, floor):
    text = f"{name:28} {seconds * 1e3:7.1f} ms a token, {1 / seconds:6.1f}/s"
    if slowest:
        text += f", {slowest / seconds:5.1f} x the peer"
    if floor:
        text += f"; floor {floor * 1e3:.1f} ms"
    return text


def _latency_row(name, times, tokens, sizes):
    each = np.array(times) / tokens * 1e3
    sent, received = (f"{size:11,}" for size in sizes) if sizes else ("", "")
    return (
        f"{name:34} {np.percentile(each, 50):5.1f} ms "
        f"{np.percentile(each, 99):5.1f} ms "
        f"{tokens * len(times) / sum(times):9.1f} {sent:>11} {received:>11}"
    )
