"""Tests of the exported signatures against the model in the process."""

import functools
import os

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from official_lrm.serving import ServingModule, checks, export_saved_model
from official_lrm.serving.checks import MAX_NEW_TOKENS

MEMORIES = {
    "memory_00": ((None, 128, 10), "float32"),
    "memory_02": ((None, 2304, 10), "float32"),
    "position": ((None,), "int32"),
}
TOKENS = {"tokens": ((None, None), "int32")}
SAMPLING = {
    "max_new_tokens": ((None,), "int32"),
    "temperature": ((None,), "float32"),
    "top_k": ((None,), "int32"),
    "top_p": ((None,), "float32"),
    "seed": ((None,), "int64"),
    "stop_token": ((None,), "int32"),
}
LOGITS = {"logits": ((None, None, 23), "float32")}
DOCUMENTED = {
    "serving_default": (TOKENS, {**LOGITS, **MEMORIES}),
    "predict": ({**TOKENS, **MEMORIES}, {**LOGITS, **MEMORIES}),
    "predict_ragged": (
        {**TOKENS, "lengths": ((None,), "int32"), **MEMORIES},
        {**LOGITS, **MEMORIES},
    ),
    "predict_top_k": (
        {**TOKENS, **MEMORIES},
        {
            "top_tokens": ((None, None, 20), "int32"),
            "top_log_probs": ((None, None, 20), "float32"),
            **MEMORIES,
        },
    ),
    "score": (
        {**TOKENS, "targets": ((None, None), "int32"), **MEMORIES},
        {"log_probs": ((None, None), "float32"), **MEMORIES},
    ),
    "generate": (
        {**TOKENS, **MEMORIES, **SAMPLING},
        {
            "generated": ((None, None), "int32"),
            "generated_lengths": ((None,), "int32"),
            **MEMORIES,
        },
    ),
}

# Those that memories are sent to.
CARRIED = [name for name in DOCUMENTED if name != "serving_default"]

# Segments of any length, T = 1 and more than a span among them.
LENGTHS = (7, 1, 13, 131, 1, 5)


def tensor_infos(infos):
    return {
        name: (
            tuple(
                None if d.size == -1 else d.size for d in info.tensor_shape.dim
            ),
            tf.dtypes.as_dtype(info.dtype).name,
        )
        for name, info in infos.items()
    }


@pytest.fixture
def signature_def(retained, open_session):
    return open_session(retained).signature_def


@pytest.fixture
def call(call_export, retained):
    """Calls a signature of `retained`."""
    return functools.partial(call_export, retained)


class TestNames:
    def test_signatures(self, retained, signature_def):
        names = set(signature_def) - {"__saved_model_init_op"}
        assert names == DOCUMENTED.keys()
        assert set(retained.loaded.signatures) == DOCUMENTED.keys()

    @pytest.mark.parametrize("name", DOCUMENTED)
    def test_inputs_and_outputs(self, signature_def, name):
        definition = signature_def[name]
        inputs, outputs = DOCUMENTED[name]
        assert tensor_infos(definition.inputs) == inputs
        assert {
            key: (len(shape), dtype)
            for key, (shape, dtype) in tensor_infos(definition.outputs).items()
        } == {
            key: (len(shape), dtype) for key, (shape, dtype) in outputs.items()
        }

    @pytest.mark.parametrize("name", DOCUMENTED)
    def test_what_comes_out_goes_in_again(self, signature_def, name):
        definition = signature_def[name]
        outputs = tensor_infos(definition.outputs)
        assert {key: outputs[key] for key in MEMORIES} == MEMORIES

    def test_no_memory_at_all(self, make_model, make_tokens):
        signatures = ServingModule(make_model((0, 0))).signatures(["predict"])
        args, kwargs = signatures["predict"].structured_input_signature
        assert {*kwargs, *(spec.name for spec in args)} == {
            "tokens",
            "position",
        }
        outputs = signatures["predict"](
            tokens=tf.constant(make_tokens(3, 7)),
            position=tf.constant([0, 5, 2]),
        )
        assert outputs.keys() == {"logits", "position"}
        assert outputs["position"].numpy().tolist() == [7, 12, 9]


class TestPredict:
    def test_segment_by_segment_it_is_the_model(
        self,
        retained,
        call,
        make_tokens,
        in_the_middle,
        assert_memories_equal,
    ):
        # Given lanes at different positions,
        model = retained.model
        expected = in_the_middle(model)
        assert expected["position"].tolist() == [0, 3, 2309]
        memories = expected
        for seed, length in enumerate(LENGTHS):
            tokens = make_tokens(3, length, seed)
            # when each response goes into the next request as it is,
            outputs = call("predict", {"tokens": tokens, **memories})
            memories = {name: outputs[name] for name in MEMORIES}
            # then everything is as in the process.
            logits, expected = model(tokens, expected)
            np.testing.assert_allclose(outputs["logits"], logits, atol=1e-5)
            assert_memories_equal(memories, expected, atol=1e-5)

    def test_no_lanes_and_no_tokens(self, retained, call):
        for lanes, length in ((0, 5), (3, 0)):
            inputs = {
                name: np.array(value)
                for name, value in retained.model.initial_memories(
                    lanes
                ).items()
            }
            inputs["tokens"] = np.zeros([lanes, length], "int32")
            outputs = call("predict", inputs)
            assert outputs["logits"].shape == (lanes, length, 23)
            assert outputs["memory_00"].shape == (lanes, 128, 10)

    def test_it_keeps_what_the_model_does_to_masks(
        self, make_model, make_tokens, assert_memories_equal
    ):
        # Given a model that differs from others in masks and distances,
        model = make_model(
            same_length=True, clamp_length=3, attend_to_empty=True
        )
        predict = ServingModule(model).signatures(["predict"])["predict"]
        plain = make_model()
        memories, expected = (model.initial_memories(3) for _ in range(2))
        for seed, length in enumerate((7, 1, 13)):
            tokens = make_tokens(3, length, seed)
            outputs = dict(predict(tokens=tf.constant(tokens), **memories))
            exact = outputs.pop("logits")
            memories = outputs
            logits, expected = model(tokens, expected)
            np.testing.assert_allclose(exact, logits, atol=1e-5)
            assert_memories_equal(memories, expected, atol=1e-5)
            assert np.max(np.abs(plain(tokens)[0] - logits)) > 1e-2

    def test_lanes_do_not_see_each_other(
        self, retained, call, make_tokens, in_the_middle
    ):
        memories = in_the_middle(retained.model)
        tokens = make_tokens(3, 7)
        order = [2, 0, 1]
        outputs = call("predict", {"tokens": tokens, **memories})
        permuted = call(
            "predict",
            {
                "tokens": tokens[order],
                **{name: value[order] for name, value in memories.items()},
            },
        )
        for name, value in outputs.items():
            np.testing.assert_allclose(permuted[name], value[order], atol=1e-5)


class TestServingDefault:
    def test_it_is_predict_with_fresh_memories(
        self, retained, call, make_tokens
    ):
        tokens = make_tokens(3, 13)
        outputs = call("serving_default", {"tokens": tokens})
        fresh = {
            name: np.array(value)
            for name, value in retained.model.initial_memories(3).items()
        }
        expected = call("predict", {"tokens": tokens, **fresh})
        assert outputs.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(outputs[name], value)

    def test_predict_goes_on_from_it(
        self, retained, call, make_tokens, assert_memories_equal
    ):
        tokens = make_tokens(3, 13)
        outputs = call("serving_default", {"tokens": tokens[:, :7]})
        del outputs["logits"]
        outputs = call("predict", {"tokens": tokens[:, 7:], **outputs})
        _, memories = retained.model(tokens[:, :7])
        logits, memories = retained.model(tokens[:, 7:], memories)
        np.testing.assert_allclose(outputs.pop("logits"), logits, atol=1e-5)
        assert_memories_equal(outputs, memories, atol=1e-5)


class TestScore:
    def test_segment_by_segment_it_is_the_model(
        self,
        retained,
        call,
        make_tokens,
        in_the_middle,
        assert_memories_equal,
    ):
        model = retained.model
        memories = expected = in_the_middle(model)
        for seed, length in enumerate((7, 1, 13)):
            text = make_tokens(3, length + 1, seed)
            tokens, targets = text[:, :-1], text[:, 1:]
            outputs = call(
                "score", {"tokens": tokens, "targets": targets, **memories}
            )
            log_probs = outputs.pop("log_probs")
            memories = outputs
            exact, expected = model.score(tokens, targets, expected)
            np.testing.assert_allclose(log_probs, exact, atol=1e-5)
            assert_memories_equal(memories, expected, atol=1e-5)
            assert log_probs.max() < 0


class TestBfloat16:
    @pytest.fixture(scope="class")
    def signatures(self, make_model, tmp_path_factory):
        model = make_model((13, 0, 5), dtype="mixed_bfloat16")
        folder = str(tmp_path_factory.mktemp("bfloat16"))
        module = ServingModule(model)
        tf.saved_model.save(module, folder, signatures=module.signatures())
        return model, tf.saved_model.load(folder).signatures

    def test_memories_are_bfloat16_in_and_out(self, signatures):
        for function in signatures[1].values():
            specs = {
                **function.structured_input_signature[1],
                **{
                    f"{name} out": spec
                    for name, spec in function.structured_outputs.items()
                },
            }
            dtypes = {
                spec.dtype
                for name, spec in specs.items()
                if name.startswith("memory_")
            }
            assert dtypes == {tf.bfloat16}

    def test_it_is_the_model(
        self, signatures, make_tokens, assert_memories_equal
    ):
        model, signatures = signatures
        memories, expected = (model.initial_memories(3) for _ in range(2))
        for seed, length in enumerate((7, 1, 13)):
            tokens = make_tokens(3, length, seed)
            outputs = dict(
                signatures["predict"](tokens=tf.constant(tokens), **memories)
            )
            logits = outputs.pop("logits")
            assert logits.dtype == tf.float32
            memories = outputs
            exact, expected = model(tokens, expected)
            # In a graph, roundings to bfloat16 in between may be left out.
            np.testing.assert_allclose(logits, exact, atol=0.3)
            assert_memories_equal(memories, expected, atol=0.3)

    def test_what_is_no_number_is_refused(self, signatures, make_tokens):
        model, signatures = signatures
        memories = dict(model.initial_memories(3))
        memories["memory_02"] += np.inf
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            signatures["predict"](
                tokens=tf.constant(make_tokens(3, 7)), **memories
            )
        assert "memory_02 must be finite" in caught.value.message

    def test_generate_hands_them_on(self, signatures, make_tokens):
        model, signatures = signatures
        inputs = {
            "tokens": tf.constant(make_tokens(3, 7)),
            **model.initial_memories(3),
            **{name: tf.constant(value) for name, value in sampling(3).items()},
        }
        outputs = dict(signatures["generate"](**inputs))
        assert outputs.pop("generated").shape == (3, 5)
        del outputs["generated_lengths"]
        logits = signatures["predict"](tokens=inputs["tokens"], **outputs)
        assert np.all(np.isfinite(logits["logits"]))


class TestAdaptiveSoftmax:
    @pytest.fixture(scope="class")
    def adaptive(self, make_model, tmp_path_factory):
        # Weights that give each cluster a fifth of the tokens at the least.
        model = make_model(
            (13, 0),
            weights_seed=3,
            cutoffs=(5, 11),
            div_value=2,
            tie_embeddings=False,
        )
        folder = str(tmp_path_factory.mktemp("adaptive"))
        path = export_saved_model(model, folder)
        return model, path, tf.saved_model.load(path).signatures

    def test_it_is_the_model(
        self, adaptive, make_tokens, assert_memories_equal
    ):
        model, _, signatures = adaptive
        memories, expected = (model.initial_memories(3) for _ in range(2))
        for seed, length in enumerate((7, 1, 13)):
            text = make_tokens(3, length + 1, seed)
            tokens, targets = tf.constant(text[:, :-1]), text[:, 1:]
            outputs = dict(signatures["predict"](tokens=tokens, **memories))
            scored = dict(
                signatures["score"](tokens=tokens, targets=targets, **memories)
            )
            exact, _ = model.score(tokens, targets, expected)
            logits, expected = model(tokens, expected)
            np.testing.assert_allclose(outputs.pop("logits"), logits, atol=1e-5)
            np.testing.assert_allclose(
                scored.pop("log_probs"), exact, atol=1e-5
            )
            assert_memories_equal(outputs, expected, atol=1e-5)
            assert_memories_equal(scored, expected, atol=1e-5)
            memories = outputs

    def test_every_cluster_is_written(self, adaptive, make_tokens):
        model, _, signatures = adaptive
        outputs = signatures["generate"](
            tokens=tf.constant(make_tokens(3, 7)),
            **model.initial_memories(3),
            **sampling(3, count=50),
        )
        generated = outputs["generated"].numpy()
        assert generated.min() < 5
        assert np.any((generated >= 5) & (generated < 11))
        assert generated.max() >= 11

    def test_a_server_knows_its_operations(self, adaptive):
        """XLA's are not in the TF Serving binary."""
        model = saved_model_pb2.SavedModel()
        with open(os.path.join(adaptive[1], "saved_model.pb"), "rb") as file:
            model.ParseFromString(file.read())
        graph = model.meta_graphs[0].graph_def
        names = {node.op for node in graph.node}
        for function in graph.library.function:
            names |= {node.op for node in function.node_def}
        assert "MatMul" in names
        assert not [name for name in names if name.startswith("Xla")]


def sampling(lanes, count=5):
    return {
        "max_new_tokens": np.full(lanes, count, "int32"),
        "temperature": np.ones(lanes, "float32"),
        "top_k": np.zeros(lanes, "int32"),
        "top_p": np.ones(lanes, "float32"),
        "seed": np.zeros(lanes, "int64"),
        "stop_token": np.full(lanes, -1, "int32"),
    }


class TestRefusals:
    """A server answers INVALID_ARGUMENT with a message that names the input."""

    @pytest.fixture
    def refusal(self, retained, call, make_tokens):
        def refuse(signature, **changes):
            inputs = {
                "tokens": make_tokens(3, 7),
                "targets": make_tokens(3, 7, seed=5),
                "lengths": np.array([7, 0, 3], "int32"),
                **retained.model.initial_memories(3),
                **sampling(3),
            }
            inputs = {
                name: np.array(inputs[name])
                for name in DOCUMENTED[signature][0]
            }
            # Right inputs pass, so that what fails is the change.
            call(signature, inputs)
            with pytest.raises(tf.errors.InvalidArgumentError) as caught:
                call(signature, {**inputs, **changes})
            return caught.value.message

        return refuse

    @pytest.mark.parametrize("signature", DOCUMENTED)
    @pytest.mark.parametrize("token", [-1, 23, 2**31 - 1])
    def test_tokens_out_of_range(self, refusal, signature, token):
        tokens = np.zeros([3, 7], "int32")
        tokens[1, 5] = token
        message = refusal(signature, tokens=tokens)
        assert "tokens must be from 0 to 22; got values from" in message
        assert str(token) in message

    @pytest.mark.parametrize("token", [-1, 23])
    def test_targets_out_of_range(self, refusal, token):
        targets = np.zeros([3, 7], "int32")
        targets[2, 0] = token
        assert "targets must be from 0 to 22" in refusal(
            "score", targets=targets
        )

    @pytest.mark.parametrize("shape", [(3, 5), (3, 1), (1, 7)])
    def test_targets_of_another_shape(self, refusal, shape):
        targets = np.zeros(shape, "int32")
        assert "targets must have the shape of tokens" in refusal(
            "score", targets=targets
        )

    @pytest.mark.parametrize("signature", CARRIED)
    def test_negative_positions(self, refusal, signature):
        position = np.array([0, -1, 5], "int32")
        message = refusal(signature, position=position)
        assert "position must not be negative" in message

    @pytest.mark.parametrize("signature", CARRIED)
    @pytest.mark.parametrize(
        ("name", "number"),
        [("memory_00", np.nan), ("memory_02", np.inf), ("memory_02", -np.inf)],
    )
    def test_memories_that_are_no_numbers(
        self, refusal, signature, name, number
    ):
        # Even in a slot that no lane has written.
        memory = np.zeros([3, *MEMORIES[name][0][1:]], "float32")
        memory[2, 5, 7] = number
        message = refusal(signature, **{name: memory})
        assert f"{name} must be finite" in message

    @pytest.mark.parametrize("signature", CARRIED)
    @pytest.mark.parametrize("name", ["memory_00", "memory_02", "position"])
    def test_memories_of_another_number_of_lanes(
        self, refusal, signature, name
    ):
        # One lane would be broadcast, silently.
        shape = [1, *MEMORIES[name][0][1:]]
        message = refusal(
            signature, **{name: np.zeros(shape, MEMORIES[name][1])}
        )
        assert f"{name} must have as many lanes as tokens" in message

    @pytest.mark.parametrize("name", SAMPLING)
    def test_sampling_of_another_number_of_lanes(self, refusal, name):
        value = sampling(1)[name]
        message = refusal("generate", **{name: value})
        assert f"{name} must have as many lanes as tokens" in message

    @pytest.mark.parametrize(
        ("name", "values", "expected"),
        [
            ("max_new_tokens", [3, -1, 0], "from 0 to"),
            ("max_new_tokens", [3, MAX_NEW_TOKENS + 1, 0], "from 0 to"),
            ("temperature", [1, -0.5, 0], "finite and not negative"),
            ("temperature", [1, float("nan"), 0], "finite and not negative"),
            ("temperature", [1, float("inf"), 0], "finite and not negative"),
            ("top_k", [3, -1, 0], "not be negative"),
            ("top_p", [0.5, 0, 1], "above 0 and at most 1"),
            ("top_p", [0.5, -0.1, 1], "above 0 and at most 1"),
            ("top_p", [0.5, 1.01, 1], "above 0 and at most 1"),
            ("top_p", [0.5, float("nan"), 1], "above 0 and at most 1"),
        ],
    )
    def test_sampling_out_of_range(self, refusal, name, values, expected):
        values = np.array(values, SAMPLING[name][1])
        message = refusal("generate", **{name: values})
        assert f"{name} must " in message
        assert expected in message

    @pytest.mark.parametrize(
        "lengths", [[7, -1, 3], [8, 0, 3], [0, 0, 2**31 - 1]], ids=str
    )
    def test_lengths_out_of_range(self, refusal, lengths):
        message = refusal("predict_ragged", lengths=np.array(lengths, "int32"))
        assert "lengths must be from 0 to" in message
        assert str(min(lengths)) in message
        assert str(max(lengths)) in message

    @pytest.mark.parametrize("lanes", [0, 1, 2, 5])
    def test_lengths_of_another_number_of_lanes(self, refusal, lanes):
        message = refusal("predict_ragged", lengths=np.zeros(lanes, "int32"))
        assert "lengths must have as many lanes as tokens" in message

    def test_no_tokens_to_go_on_from(self, refusal):
        message = refusal("generate", tokens=np.zeros([3, 0], "int32"))
        assert "tokens must hold at least one token a lane" in message


@pytest.mark.parametrize(
    "shape", [(3, 127, 10), (3, 1, 10), (3, 128, 11), (3, 128, 1), (128, 10)]
)
@pytest.mark.parametrize("name", CARRIED)
def test_memories_of_another_shape_are_refused(
    retained, make_tokens, name, shape
):
    # A v1 session's Python refuses them by itself; a server's C++ does not.
    inputs = {
        "tokens": make_tokens(3, 7),
        "targets": make_tokens(3, 7),
        "lengths": np.array([7, 0, 3], "int32"),
        **retained.model.initial_memories(3),
        **sampling(3),
        "memory_00": np.zeros(shape, "float32"),
    }
    inputs = {key: tf.constant(inputs[key]) for key in DOCUMENTED[name][0]}
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        retained.loaded.signatures[name](**inputs)
    message = "memory_00 must have the shape [any, 128, 10]; got"
    assert message in caught.value.message


class TestLimits:
    """What no response could hold is refused before memory is taken for it."""

    @pytest.fixture
    def refusal(self):
        def refuse(function, inputs):
            with pytest.raises(tf.errors.InvalidArgumentError) as caught:
                function(inputs)
            return caught.value.message

        return refuse

    def test_lanes(self, call, refusal):
        # Given lanes whose memories are 190 GiB, which no allocation gives:
        # that would be another error,
        tokens = np.zeros([2**21, 1], "int32")
        message = refusal(
            functools.partial(call, "serving_default"), {"tokens": tokens}
        )
        assert "tokens must be few enough for" in message
        assert "lanes, tokens:" in message

    def test_memories_are_made_behind_the_check(self, short, monkeypatch):
        # Given the lanes of all memories that a signature makes,
        sizes = []
        make = type(short.model).initial_memories

        def told(model, batch_size):
            sizes.append(batch_size)
            return make(model, batch_size)

        monkeypatch.setattr(type(short.model), "initial_memories", told)
        ServingModule(short.model).signatures(["serving_default"])
        # then they wait for the comparison with the limit.
        (size,) = sizes
        waits_for, left = set(), [size.op]
        while left:
            operation = left.pop()
            if operation not in waits_for:
                waits_for.add(operation)
                left += operation.control_inputs
                left += [value.op for value in operation.inputs]
        assert checks.MAX_MESSAGE_BYTES in [
            tf.get_static_value(operation.outputs[0]).tolist()
            for operation in waits_for
            if operation.type == "Const"
            and operation.outputs[0].dtype == tf.int64
        ]

    @pytest.mark.parametrize(
        "signature", [name for name in DOCUMENTED if name != "generate"]
    )
    def test_attention_scores(self, call, retained, refusal, signature):
        # Given the fewest tokens of a lane whose scores, 2 heads' for 2304
        # more keys, are above 2 GiB,
        inputs = {
            "tokens": np.zeros([1, 15273], "int32"),
            "targets": np.zeros([1, 15273], "int32"),
            "lengths": np.array([7], "int32"),
            **retained.model.initial_memories(1),
        }
        inputs = {name: inputs[name] for name in DOCUMENTED[signature][0]}
        message = refusal(functools.partial(call, signature), inputs)
        assert (
            "tokens must be few enough for attention scores of 2147483647 bytes"
        ) in message

    @pytest.mark.parametrize(
        "signature",
        ["serving_default", "predict_ragged", "predict_top_k"],
    )
    def test_a_response_may_be_as_large_as_a_message(
        self, short, make_tokens, monkeypatch, refusal, signature
    ):
        # Given a limit of all bytes of a response, and nothing to spare,
        def inputs(length):
            values = {
                "tokens": make_tokens(3, length),
                "lengths": np.array([7, 0, 3], "int32"),
                **short.model.initial_memories(3),
            }
            names = short.loaded.signatures[
                signature
            ].structured_input_signature[1]
            return {name: tf.constant(values[name]) for name in names}

        outputs = short.loaded.signatures[signature](**inputs(7))
        size = sum(value.numpy().nbytes for value in outputs.values())
        monkeypatch.setattr(checks, "MAX_MESSAGE_BYTES", size)
        function = ServingModule(short.model).signatures([signature])[signature]
        # when it is asked for, it is given, but not that of one token more.
        assert function(**inputs(7)).keys() == outputs.keys()
        message = refusal(lambda values: function(**values), inputs(8))
        assert f"tokens must be few enough for a response of {size}" in message

    @pytest.mark.parametrize(
        ("signature", "changes"),
        [
            # Logits exist, though only one number of each row is returned.
            ("score", {"tokens": (3, 8), "targets": (3, 8)}),
            # All lanes are as wide as the longest.
            ("generate", {"max_new_tokens": (0, 1, 6)}),
        ],
    )
    def test_of_what_else_takes_memory(
        self, short, make_tokens, monkeypatch, refusal, signature, changes
    ):
        # Given a limit of just what is made,
        inputs = {
            "tokens": make_tokens(3, 7),
            "targets": make_tokens(3, 7),
            **short.model.initial_memories(3),
            **sampling(3),
        }
        names = short.loaded.signatures[signature].structured_input_signature[1]
        inputs = {name: tf.constant(inputs[name]) for name in names}
        outputs = short.loaded.signatures[signature](**inputs)
        size = sum(value.numpy().nbytes for value in outputs.values())
        if signature == "score":
            size += 3 * 7 * (23 - 1) * 4
        monkeypatch.setattr(checks, "MAX_MESSAGE_BYTES", size)
        function = ServingModule(short.model).signatures([signature])[signature]
        function(**inputs)
        # then a token more is refused.
        for name, values in changes.items():
            inputs[name] = tf.constant(
                make_tokens(*values)
                if name in ("tokens", "targets")
                else np.array(values, "int32")
            )
        message = refusal(lambda values: function(**values), inputs)
        assert f"tokens must be few enough for a response of {size}" in message

    def test_scores_may_be_as_large_as_their_limit(
        self, short, make_tokens, monkeypatch, refusal
    ):
        # 2 heads, 3 lanes, 7 tokens, and those of the longest memory.
        limit = 2 * 3 * 7 * (11 + 7) * 4
        monkeypatch.setattr(checks, "MAX_SCORES_BYTES", limit)
        function = ServingModule(short.model).signatures(["serving_default"])[
            "serving_default"
        ]
        function(tokens=tf.constant(make_tokens(3, 7)))
        message = refusal(
            lambda tokens: function(tokens=tokens),
            tf.constant(make_tokens(3, 8)),
        )
        assert f"for attention scores of {limit} bytes" in message

    @pytest.mark.parametrize("memory_dtype", [None, "int8"])
    @pytest.mark.parametrize("memory_format", ["hidden", "key_value"])
    def test_bytes_of_a_state(self, make_model, memory_format, memory_dtype):
        model = make_model(
            (5, 0, 11), memory_format=memory_format, memory_dtype=memory_dtype
        )
        state = model.initial_memories(3).values()
        size = sum(np.array(value).nbytes for value in state)
        assert 3 * checks.state_bytes(model) == size
