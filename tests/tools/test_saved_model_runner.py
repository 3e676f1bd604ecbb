"""Tests that exports give in the C++ runtime what they give in Python."""

import dataclasses
import fcntl
import importlib.util
import os
import pathlib
import shutil
import subprocess
import types

import numpy as np
import pytest
import tensorflow as tf

import official_lrm as lrm
from official_lrm import serving
from official_lrm.data import SentencePieceTokenizer, WordTokenizer

TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools"

# V, D, N, H, F, and spans that segments of LENGTHS fill and pass.
SIZES = {
    "vocab_size": 23,
    "hidden_size": 10,
    "num_heads": 2,
    "head_size": 7,
    "inner_size": 17,
    "spans": (5, 0, 11),
}
MEMORIES = ("memory_00", "memory_02", "position")
LENGTHS = (7, 1, 13, 3)


def load_tool():
    path = TOOL / "saved_model_runner.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tool = load_tool()
Call = tool.Call


@pytest.fixture(scope="session")
def runner(tmp_path_factory):
    """The program, compiled once for all workers."""
    if tool.find_compiler() is None:
        pytest.skip("there is no C++ compiler")
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    path = folder / "saved_model_runner"
    with open(folder / "saved_model_runner.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return str(path) if path.exists() else tool.compile_runner(folder)


def make_export(folder, tokenizer=None, **kwargs):
    model = lrm.TransformerXLLanguageModel(**{**SIZES, **kwargs})
    # Initial weights are so small that every token would be as likely.
    rng = np.random.default_rng(2)
    for weight in model.weights:
        value = rng.normal(size=weight.shape) * 0.4
        weight.assign(value + (weight.name == "gamma"))
    path = serving.export_saved_model(model, str(folder), tokenizer=tokenizer)
    return types.SimpleNamespace(
        model=model, path=path, signatures=tf.saved_model.load(path).signatures
    )


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """A model, its export's path, and its signatures loaded in Python."""
    return make_export(tmp_path_factory.mktemp("float32"))


@pytest.fixture(scope="module")
def of_bfloat16(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bfloat16")
    return make_export(folder, dtype="mixed_bfloat16")


@pytest.fixture
def run(runner, export):
    """Runs calls of `export` and returns their results."""

    def run(calls, **kwargs):
        return tool.run_calls(runner, export.path, calls, **kwargs).results

    return run


def make_tokens(length, seed=3, lanes=3):
    rng = np.random.default_rng(seed)
    return rng.integers(0, SIZES["vocab_size"], (lanes, length), dtype="int32")


def segments():
    return [make_tokens(length, seed) for seed, length in enumerate(LENGTHS)]


def fresh(model):
    memories = model.initial_memories(3)
    return {name: np.array(value) for name, value in memories.items()}


def sampling(count, lanes=3):
    return {
        "max_new_tokens": np.full(lanes, count, "int32"),
        "temperature": np.ones(lanes, "float32"),
        "top_k": np.zeros(lanes, "int32"),
        "top_p": np.ones(lanes, "float32"),
        "seed": np.arange(lanes, dtype="int64"),
        "stop_token": np.full(lanes, -1, "int32"),
    }


def call_python(export, signature, inputs):
    inputs = {name: tf.constant(value) for name, value in inputs.items()}
    outputs = export.signatures[signature](**inputs)
    return {name: value.numpy() for name, value in outputs.items()}


def assert_equal(outputs, expected, atol):
    assert outputs.keys() == expected.keys()
    for name, value in expected.items():
        other, value = outputs[name], np.array(value)
        assert other.shape == value.shape
        assert other.dtype == value.dtype
        np.testing.assert_allclose(
            other.astype("float64"),
            value.astype("float64"),
            rtol=0,
            atol=atol,
            err_msg=name,
        )


def predict_calls(model, stream=0):
    """Segments, memories sent with the first of them only."""
    calls = [
        Call("predict", {"tokens": tokens}, ("logits", *MEMORIES), stream)
        for tokens in segments()
    ]
    calls[0].inputs.update(fresh(model))
    return calls


class TestPredict:
    def test_segment_by_segment_it_is_the_model(self, run, export):
        results = run(predict_calls(export.model))
        memories = export.model.initial_memories(3)
        for result, tokens in zip(results, segments(), strict=True):
            logits, memories = export.model(tokens, memories)
            assert_equal(
                result.outputs, {"logits": logits, **memories}, atol=1e-5
            )

    def test_it_is_what_python_gives(self, run, export):
        results = run(predict_calls(export.model))
        memories = fresh(export.model)
        for result, tokens in zip(results, segments(), strict=True):
            inputs = {"tokens": tokens, **memories}
            expected = call_python(export, "predict", inputs)
            # tf.function rounds elsewhere than a session does.
            assert_equal(result.outputs, expected, atol=1e-5)
            memories = {name: expected[name] for name in MEMORIES}

    @pytest.mark.parametrize(
        ("name", "threads"),
        [("export", 0), ("export", 1), ("of_bfloat16", 0)],
    )
    def test_it_is_what_a_session_gives(self, request, runner, name, threads):
        export = request.getfixturevalue(name)
        calls = predict_calls(export.model)
        results = tool.run_calls(runner, export.path, calls, threads).results
        memories = fresh(export.model)
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            loaded = tf.compat.v1.saved_model.loader.load(
                session, ["serve"], export.path
            )
            signature = loaded.signature_def["predict"]
            fetches = {
                name: info.name for name, info in signature.outputs.items()
            }
            for result, tokens in zip(results, segments(), strict=True):
                inputs = {"tokens": tokens, **memories}
                expected = session.run(
                    fetches,
                    {
                        signature.inputs[name].name: value
                        for name, value in inputs.items()
                    },
                )
                assert_equal(result.outputs, expected, atol=0)
                memories = {name: expected[name] for name in MEMORIES}

    def test_bfloat16(self, runner, of_bfloat16):
        model = of_bfloat16.model
        calls = predict_calls(model)
        results = tool.run_calls(runner, of_bfloat16.path, calls).results
        bfloat16 = tf.bfloat16.as_numpy_dtype
        assert results[0].outputs["memory_00"].dtype == bfloat16
        memories = model.initial_memories(3)
        for result, tokens in zip(results, segments(), strict=True):
            logits, memories = model(tokens, memories)
            # In a graph, roundings to bfloat16 in between may be left out.
            assert_equal(
                result.outputs, {"logits": logits, **memories}, atol=0.3
            )


class TestCarriedState:
    def test_what_is_sent_goes_first(self, run, export):
        calls = predict_calls(export.model)
        first, again = run([*calls, calls[0]])[:: len(calls)]
        assert first.outputs["position"].tolist() == [7, 7, 7]
        assert_equal(again.outputs, first.outputs, atol=0)

    def test_it_is_what_a_client_would_send(self, run, export):
        calls = predict_calls(export.model)[:2]
        first, second = run(calls)
        sent = {name: first.outputs[name] for name in MEMORIES}
        calls[1].inputs.update(sent)
        (alone,) = run(calls[1:])
        assert_equal(alone.outputs, second.outputs, atol=0)

    def test_a_default_is_for_what_is_neither_sent_nor_carried(
        self, runner, tmp_path
    ):
        x = tf.TensorSpec([None], tf.float32, "x")
        state = tf.TensorSpec([None], tf.float32, "state")

        @tf.function(input_signature=[x, state])
        def add(x, state=tf.constant([5.0])):  # noqa: B008
            return {"state": x + state}

        path = str(tmp_path)
        tf.saved_model.save(tf.Module(), path, signatures={"add": add})
        one = np.ones(1, "float32")
        calls = [
            Call("add", {"x": one}, ["state"]),
            Call("add", {"x": one}, ["state"]),
            Call("add", {"x": one, "state": one}, ["state"]),
            Call("add", {"x": one}, ["state"]),
        ]
        results = tool.run_calls(runner, path, calls).results
        assert [result.outputs["state"].tolist() for result in results] == [
            [6],
            [7],
            [2],
            [3],
        ]


def test_serving_default_and_predict_after_it(run, export):
    tokens = make_tokens(13)
    start, goes_on = run(
        [
            Call("serving_default", {"tokens": tokens[:, :7]}, ["logits"]),
            Call("predict", {"tokens": tokens[:, 7:]}, ["logits", *MEMORIES]),
        ]
    )
    logits, memories = export.model(tokens[:, :7])
    assert_equal(start.outputs, {"logits": logits}, atol=1e-5)
    logits, memories = export.model(tokens[:, 7:], memories)
    assert_equal(goes_on.outputs, {"logits": logits, **memories}, atol=1e-5)


def test_generate(run, export):
    inputs = {"tokens": make_tokens(7), **fresh(export.model), **sampling(19)}
    (result,) = run([Call("generate", inputs, ["generated", *MEMORIES])])
    expected = call_python(export, "generate", inputs)
    assert expected.pop("generated_lengths").tolist() == [19] * 3
    generated = expected.pop("generated")
    assert np.unique(generated).size > 5
    assert result.outputs.pop("generated").tolist() == generated.tolist()
    assert_equal(result.outputs, expected, atol=1e-5)


class TestText:
    TEXT = b"the cat sat on the mat"

    def export(self, folder, tokenizer):
        kwargs = {"spans": (0,), "vocab_size": tokenizer.vocab_size}
        return make_export(folder, tokenizer, **kwargs).path

    def calls(self):
        texts = np.array([self.TEXT, b"the"], object)
        return [
            Call("tokenize", {"text": texts}, ["tokens", "lengths"]),
            # Takes both outputs of the one before.
            Call("detokenize", outputs=["text"]),
        ]

    def test_words(self, runner, tmp_path):
        # Their table is filled by the operation that initializes the model.
        tokenizer = WordTokenizer.learn([self.TEXT])
        path = self.export(tmp_path, tokenizer)
        ids, texts = tool.run_calls(runner, path, self.calls()).results
        assert ids.outputs["lengths"].tolist() == [6, 1]
        expected = tokenizer.encode(self.TEXT).tolist()
        assert ids.outputs["tokens"][0].tolist() == expected
        assert texts.outputs["text"].tolist() == [self.TEXT, b"the"]

    def test_operations_of_a_library(self, runner, tmp_path):
        tokenizer = SentencePieceTokenizer.learn([self.TEXT], 276)
        path = self.export(tmp_path, tokenizer)
        with pytest.raises(ValueError, match="^NOT_FOUND: .*SentencepieceOp"):
            tool.run_calls(runner, path, self.calls())
        libraries = [tool.sentencepiece_library()]
        made = tool.run_calls(runner, path, self.calls(), libraries=libraries)
        ids, texts = made.results
        length = ids.outputs["lengths"][0]
        expected = tokenizer.encode(self.TEXT).tolist()
        assert ids.outputs["tokens"][0, :length].tolist() == expected
        assert texts.outputs["text"].tolist() == [self.TEXT, b"the"]

    def test_no_such_library(self, runner, export):
        with pytest.raises(ValueError, match="^NOT_FOUND: .*no_such_library"):
            tool.run_calls(
                runner, export.path, [], libraries=["/no_such_library.so"]
            )


class TestStreams:
    def test_they_do_not_see_each_other(self, run):
        # Given streams of the same signatures that start differently,
        streams = (0, 3, 1, 7, 2**40)
        alone = [
            [Call("serving_default", {"tokens": make_tokens(5, seed=stream)})]
            + [
                Call("predict", {"tokens": tokens}, ["logits"])
                for tokens in segments() * 5
            ]
            for stream in streams
        ]
        expected = run([call for calls in alone for call in calls])
        # when they run at once,
        results = run(
            [
                dataclasses.replace(call, stream=stream)
                for calls in zip(*alone, strict=True)
                for stream, call in zip(streams, calls, strict=True)
            ]
        )
        # then each is as it is alone, and the results are in their order.
        by_stream = [
            result
            for i in range(len(streams))
            for result in results[i :: len(streams)]
        ]
        for result, other in zip(by_stream, expected, strict=True):
            assert_equal(result.outputs, other.outputs, atol=0)
        firsts = {
            result.outputs["logits"].tobytes()
            for result in results[len(streams) : 2 * len(streams)]
        }
        assert len(firsts) == len(streams)

    def test_nothing_is_carried_into_another(self, run, export):
        # Given a stream that has memories,
        tokens = make_tokens(5)
        calls = [
            Call("serving_default", {"tokens": tokens}),
            # and one beside it that has none, and is there later,
            *(
                Call(name, inputs, stream=1, may_fail=True)
                for name, inputs in (
                    ("score", {"tokens": tokens + 23, "targets": tokens}),
                    ("serving_default", {"tokens": tokens + 23}),
                    ("predict", {"tokens": tokens}),
                )
            ),
        ]
        calls[1].inputs.update(fresh(export.model))
        # then it does not get them from there.
        last = run(calls)[-1]
        assert last.status == "INVALID_ARGUMENT"
        assert "not found in request" in last.message


class TestFailures:
    def test_the_process_goes_on(self, run, export):
        tokens, memories = make_tokens(7), fresh(export.model)
        short = np.zeros([3, 4, 10], "float32")
        cases = [
            ("nothing", {}, (), "FAILED_PRECONDITION", 'signature "nothing"'),
            (
                "serving_default",
                {},
                (),
                "INVALID_ARGUMENT",
                "input alias: tokens",
            ),
            (
                "serving_default",
                {"tokens": tokens, "targets": tokens},
                (),
                "INVALID_ARGUMENT",
                "invalid name",
            ),
            (
                "serving_default",
                {"tokens": tokens.astype("float32")},
                (),
                "INVALID_ARGUMENT",
                "to be int32 but float",
            ),
            (
                "serving_default",
                {"tokens": tokens + 23},
                (),
                "INVALID_ARGUMENT",
                "tokens must be from 0 to 22",
            ),
            (
                "predict",
                {"tokens": tokens, **memories, "memory_00": short},
                (),
                "INVALID_ARGUMENT",
                "shape",
            ),
            (
                "predict",
                {"tokens": tokens},
                ["log_probs"],
                "INVALID_ARGUMENT",
                "no output log_probs",
            ),
        ]
        calls = predict_calls(export.model)
        bad = [Call(*case[:3], may_fail=True) for case in cases]
        results = run([calls[0], *bad, calls[1]])
        for result, case in zip(results[1:-1], cases, strict=True):
            assert result.status == case[3]
            assert case[4] in result.message
            assert not result.outputs
        # What was carried is as if the others had not been made.
        for result, undisturbed in zip(
            results[:: len(results) - 1], run(calls[:2]), strict=True
        ):
            assert result.status == "OK"
            assert not result.message
            assert_equal(result.outputs, undisturbed.outputs, atol=0)

    def test_one_that_is_not_allowed(self, run, export):
        calls = predict_calls(export.model)
        calls[2].inputs["tokens"] = make_tokens(7) + 23
        with pytest.raises(ValueError) as caught:
            run(calls)
        message = str(caught.value)
        assert message.startswith(
            "INVALID_ARGUMENT: call 2 (predict, stream 0): assertion failed: "
            "[tokens must be from 0 to 22"
        )
        assert "\n" not in message

    def test_no_saved_model(self, runner, tmp_path):
        with pytest.raises(ValueError, match="^NOT_FOUND: .*SavedModel"):
            tool.run_calls(runner, str(tmp_path), [])

    def test_wrong_arguments(self, runner):
        for arguments in ([], ["a", "b", "c", "-1"], ["a", "b", "c", "x"]):
            done = subprocess.run(
                [runner, *arguments], capture_output=True, encoding="utf-8"
            )
            assert done.returncode == 1
            (line,) = done.stderr.splitlines()
            assert line.startswith(
                "saved_model_runner: error: INVALID_ARGUMENT: takes <saved"
            )

    def test_a_crash(self, export):
        with pytest.raises(RuntimeError, match="ended with 1"):
            tool.run_calls(shutil.which("false"), export.path, [])


def test_every_run_has_a_time(runner, export):
    tokens = make_tokens(7)
    made = tool.run_calls(
        runner,
        export.path,
        [
            Call("serving_default", {"tokens": tokens}),
            Call("predict", {"tokens": tokens}),
            Call("nothing", may_fail=True),
        ],
    )
    assert made.load_seconds > 0
    times = [result.microseconds for result in made.results]
    assert [time > 0 for time in times] == [True, True, False]


class TestCompiler:
    def test_none(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        assert tool.find_compiler() is None
        with pytest.raises(FileNotFoundError, match="no C\\+\\+ compiler"):
            tool.compile_runner(tmp_path)

    @pytest.mark.skipif(
        tool.find_compiler() is None, reason="there is no C++ compiler"
    )
    def test_what_it_says_is_shown(self, monkeypatch, tmp_path):
        source = tmp_path / "wrong.cc"
        source.write_text("#error the source is wrong\n", encoding="utf-8")
        monkeypatch.setattr(tool, "SOURCE", source)
        with pytest.raises(RuntimeError, match="the source is wrong"):
            tool.compile_runner(tmp_path)
