"""Tests of the language model: sizes, calls, scores, gradients, tracing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import official_lrm as lrm

UNEVEN = (5, 0, 11)
SEED = np.array([17, 5], "int32")
DROPOUT = {"dropout": 0.3, "attention_dropout": 0.2}


def formula(spans, sizes, untie_biases=False):
    """Parameters as a function of the sizes, h = N * H."""
    d, f, v = (sizes[k] for k in ("hidden_size", "inner_size", "vocab_size"))
    h, layers = sizes["num_heads"] * sizes["head_size"], len(spans)
    layer = 3 * d * h + d * h + h * d + 4 * d + 2 * d * f + f + d
    biases = 2 * h * (layers if untie_biases else 1)
    return layers * layer + biases + v * d + v


class TestParameters:
    @pytest.mark.parametrize("untie_biases", [False, True])
    def test_they_are_counted_by_the_formula(
        self, make_model, sizes, untie_biases
    ):
        model = make_model(UNEVEN, untie_biases=untie_biases)
        expected = formula(UNEVEN, sizes, untie_biases)
        assert model.count_params() == expected
        # By hand: 3 layers of 5 * 14 * 15 + 4 * 14 + 2 * 14 * 17 + 17 + 14,
        # biases of 2 * 15 (for each layer or once), and 19 * 14 + 19.
        assert expected == 3 * 1613 + 30 * (3 if untie_biases else 1) + 285

    def test_they_do_not_depend_on_memory(self, make_model):
        shapes = [
            [(weight.path, weight.shape) for weight in model.weights]
            for model in (
                make_model(UNEVEN, name="lm"),
                make_model((0, 0, 0), name="lm"),
                make_model((997, 0, 3), name="lm", same_length=True),
                make_model(UNEVEN, name="lm", clamp_length=2),
                make_model(UNEVEN, name="lm", attend_to_empty=True),
            )
        ]
        assert all(other == shapes[0] for other in shapes[1:])

    def test_the_published_12_layers(self):
        model = lrm.TransformerXLLanguageModel(
            vocab_size=204,
            spans=[512] * 12,
            hidden_size=512,
            num_heads=8,
            head_size=64,
            inner_size=2048,
        )
        assert model.count_params() == 41_055_436


class TestCalls:
    def test_no_memories_are_fresh_ones(self, make_model, make_tokens):
        model, tokens = make_model(), make_tokens(2, 7)
        logits, memories = model(tokens)
        expected, final = model(tokens, model.initial_memories(2))
        np.testing.assert_array_equal(logits, expected)
        for name in final:
            np.testing.assert_array_equal(memories[name], final[name])

    def test_memories_make_a_difference(self, make_model, make_tokens):
        model, tokens = make_model(), make_tokens(2, 7)
        _, memories = model(make_tokens(2, 7, seed=5))
        with_memory, _ = model(tokens, memories)
        assert np.max(np.abs(with_memory - model(tokens)[0])) > 1e-2

    @pytest.mark.parametrize("length", [1, 5, 11, 17])
    def test_segments_of_any_length(self, make_model, make_tokens, length):
        model = make_model()
        logits, memories = model(make_tokens(2, length))
        assert logits.shape == (2, length, 19)
        assert logits.dtype == "float32"
        assert np.array(memories["position"]).tolist() == [length] * 2
        assert model.memory_specs(2) == {
            name: (tuple(value.shape), value.dtype)
            for name, value in memories.items()
        }

    def test_no_lanes(self, make_model, make_tokens):
        logits, memories = make_model()(make_tokens(0, 7))
        assert logits.shape == (0, 7, 19)
        assert memories["memory_00"].shape == (0, 5, 14)

    @pytest.mark.parametrize("dtype", ["int64", "int16", "uint8"])
    def test_tokens_of_any_integer_type(self, make_model, make_tokens, dtype):
        model, tokens = make_model(), make_tokens(2, 7)
        expected, _ = model(tokens)
        logits, _ = model(tokens.astype(dtype))
        np.testing.assert_array_equal(logits, expected)

    @pytest.mark.parametrize(
        ("tokens", "got"),
        [
            (np.zeros([2, 7], "float32"), r"float32 of shape \(2, 7\)"),
            (np.zeros([7], "int32"), r"int32 of shape \(7,\)"),
            (np.zeros([2, 7, 1], "int32"), r"int32 of shape \(2, 7, 1\)"),
        ],
    )
    def test_tokens_that_are_none(self, make_model, tokens, got):
        message = rf"tokens must be integers of shape \[B, T\]; got {got}"
        with pytest.raises(ValueError, match=message):
            make_model()(tokens)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"memory_02": None}, "memories lack memory_02"),
            ({"position": None}, "memories lack position"),
            (
                {"memory_01": np.zeros([2, 3, 14], "float32")},
                "memories hold memory_01",
            ),
            (
                {"memory_00": np.zeros([2, 3, 14], "float32")},
                r"memory_00 must have the shape \(2, 5, 14\)",
            ),
            (
                {"memory_00": np.zeros([1, 5, 14], "float32")},
                r"memory_00 must have the shape \(2, 5, 14\)",
            ),
            (
                {"position": np.zeros([2, 1], "int32")},
                r"position must have the shape \(2,\)",
            ),
        ],
    )
    @pytest.mark.parametrize("method", ["call", "score"])
    def test_wrong_memories_are_named(
        self, make_model, make_tokens, change, message, method
    ):
        model, tokens = make_model(), make_tokens(2, 7)
        memories = {**model.initial_memories(2), **change}
        memories = {k: v for k, v in memories.items() if v is not None}
        with pytest.raises(ValueError, match=message):
            if method == "call":
                model(tokens, memories)
            else:
                model.score(tokens, tokens, memories)


class TestScore:
    @pytest.mark.parametrize("warm", [False, True])
    def test_it_is_the_log_softmax_of_the_targets(
        self, make_model, make_tokens, warm
    ):
        model = make_model()
        tokens, targets = make_tokens(2, 7), make_tokens(2, 7, seed=5)
        memories = model(make_tokens(2, 13, seed=7))[1] if warm else None
        logits, after = model(tokens, memories)
        expected = np.take_along_axis(
            np.array(keras.ops.log_softmax(logits)), targets[..., None], -1
        )[..., 0]
        log_probs, after_score = model.score(tokens, targets, memories)
        assert log_probs.dtype == "float32"
        np.testing.assert_allclose(log_probs, expected, atol=1e-5)
        assert np.all(np.array(log_probs) < 0)
        assert after.keys() == after_score.keys()
        for name in after:
            np.testing.assert_array_equal(after_score[name], after[name])

    def test_probabilities_of_all_targets_add_up_to_one(
        self, make_model, make_tokens
    ):
        model = make_model()
        tokens = np.repeat(make_tokens(1, 5), 19, axis=0)
        targets = np.repeat(np.arange(19)[:, None], 5, axis=1)
        log_probs, _ = model.score(tokens, targets)
        total = np.sum(np.exp(log_probs), axis=0)
        np.testing.assert_allclose(total, 1, atol=1e-5)

    def test_it_drops_as_a_call_does(self, make_model, make_tokens):
        model, tokens = make_model(**DROPOUT), make_tokens(2, 7)
        logits, _ = model(tokens, training=True, seed=SEED)
        log_probs, _ = model.score(tokens, tokens, training=True, seed=SEED)
        expected = np.take_along_axis(
            np.array(keras.ops.log_softmax(logits)), tokens[..., None], -1
        )[..., 0]
        np.testing.assert_allclose(log_probs, expected, atol=1e-5)


class TestGradients:
    @pytest.mark.parametrize("untie_biases", [False, True])
    def test_they_reach_every_variable(
        self, make_model, make_tokens, untie_biases
    ):
        model = make_model(untie_biases=untie_biases, **DROPOUT)
        _, memories = model(make_tokens(2, 7, seed=5))
        with tf.GradientTape() as tape:
            log_probs, _ = model.score(
                make_tokens(2, 7), make_tokens(2, 7, seed=7), memories, True
            )
            loss = -tf.reduce_mean(log_probs)
        gradients = tape.gradient(loss, model.trainable_variables)
        assert len(gradients) == len(model.trainable_variables) > 40
        for variable, gradient in zip(
            model.trainable_variables, gradients, strict=True
        ):
            assert gradient is not None, variable.path
            gradient = np.array(tf.convert_to_tensor(gradient))
            assert np.all(np.isfinite(gradient)), variable.path
            assert np.max(np.abs(gradient)) > 1e-6, variable.path

    def test_none_flows_into_the_memories(self, make_model, make_tokens):
        model = make_model()
        _, memories = model(make_tokens(2, 7, seed=5))
        tensors = [memories["memory_00"], memories["memory_02"]]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            logits, after = model(make_tokens(2, 3), memories)
            loss = tf.reduce_sum(logits**2) + tf.reduce_sum(
                after["memory_02"] ** 2
            )
        assert tape.gradient(loss, tensors) == [None, None]

    def test_none_flows_out_of_the_new_memories(self, make_model, make_tokens):
        model = make_model()
        with tf.GradientTape() as tape:
            _, after = model(make_tokens(2, 3))
            loss = sum(
                tf.reduce_sum(after[name] ** 2)
                for name in ("memory_00", "memory_02")
            )
        gradients = tape.gradient(loss, model.trainable_variables)
        assert set(map(type, gradients)) == {type(None)}

    def test_keys_and_values_learn_from_the_memory(
        self, make_model, make_tokens
    ):
        # Given a segment of one token, which alone leaves attention no
        # choice,
        model = make_model((5,))
        kernel = model.backbone.blocks[0].attention.key_kernel

        def slope(memories):
            with tf.GradientTape() as tape:
                logits, _ = model(make_tokens(2, 1), memories)
                loss = tf.reduce_sum(logits**2)
            return np.max(np.abs(tape.gradient(loss, kernel.value)))

        # then the key kernel has a gradient through the memory only.
        assert slope(None) < 1e-5
        assert slope(model(make_tokens(2, 7, seed=5))[1]) > 1e-2


class TestTracing:
    def test_symbolically(self, make_model, make_tokens):
        model = make_model()
        tokens = keras.Input([None], dtype="int32")
        memories = {
            name: keras.Input(spec.shape[1:], dtype=spec.dtype, name=name)
            for name, spec in model.memory_specs().items()
        }
        logits, after = model(tokens, memories)
        assert logits.shape == (None, None, 19)
        assert {k: (v.shape, v.dtype) for k, v in after.items()} == (
            model.memory_specs()
        )
        assert model(tokens)[0].shape == (None, None, 19)
        # The graph computes what the model does.
        graph = keras.Model([tokens, memories], [logits, after])
        _, warm = model(make_tokens(3, 13, seed=5))
        segment = tf.constant(make_tokens(3, 5))
        graph_logits, graph_after = graph([segment, warm])
        expected, final = model(segment, warm)
        np.testing.assert_allclose(graph_logits, expected, atol=1e-5)
        for name in final:
            np.testing.assert_allclose(
                graph_after[name], final[name], atol=1e-5
            )

    @pytest.mark.parametrize("same_length", [False, True])
    def test_with_unknown_lanes_and_length(
        self, make_model, make_tokens, same_length
    ):
        model = make_model(same_length=same_length)
        traces = []

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None], "int32"),
                {
                    name: tf.TensorSpec(spec.shape, spec.dtype)
                    for name, spec in model.memory_specs().items()
                },
            ]
        )
        def call(tokens, memories):
            traces.append(1)
            logits, after = model(tokens, memories)
            assert {k: tuple(v.shape) for k, v in after.items()} == {
                k: spec.shape for k, spec in model.memory_specs().items()
            }
            return logits, after

        for batch_size, length in ((2, 7), (3, 1), (1, 17)):
            memories = model.initial_memories(batch_size)
            for seed in (3, 5):
                tokens = make_tokens(batch_size, length, seed)
                expected, final = model(tokens, memories)
                logits, after = call(tokens, memories)
                np.testing.assert_allclose(logits, expected, atol=1e-5)
                for name in final:
                    np.testing.assert_allclose(
                        after[name], final[name], atol=1e-5
                    )
                memories = final
        assert len(traces) == 1

    def test_fresh_memories_of_an_unknown_number_of_lanes(
        self, make_model, make_tokens
    ):
        model = make_model()

        @tf.function(input_signature=[tf.TensorSpec([None, None], "int32")])
        def call(tokens):
            return model(tokens)

        logits, memories = call(make_tokens(3, 7))
        expected, _ = model(make_tokens(3, 7))
        np.testing.assert_allclose(logits, expected, atol=1e-5)
        assert np.array(memories["position"]).tolist() == [7] * 3

    def test_compiled_by_xla(self, make_model, make_tokens):
        model = make_model()
        _, memories = model(make_tokens(2, 13, seed=5))
        call = tf.function(lambda *inputs: model(*inputs)[0], jit_compile=True)
        logits = call(make_tokens(2, 7), memories)
        expected, _ = model(make_tokens(2, 7), memories)
        np.testing.assert_allclose(logits, expected, atol=1e-4)
