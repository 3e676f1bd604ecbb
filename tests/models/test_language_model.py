"""Tests of the language model: sizes, scores, gradients, dropout, dtypes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import official_lrm as lrm
from official_lrm.layers import sinusoidal_positions

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

    @pytest.mark.slow  # 1.1 GB.
    def test_the_published_24_layers(self):
        model = lrm.TransformerXLLanguageModel(
            vocab_size=204,
            spans=lrm.MemorySpans.arrange(num_layers=24, num_long=4),
            hidden_size=1024,
            num_heads=8,
            head_size=128,
            inner_size=3072,
        )
        assert model.count_params() == 277_231_820


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


class TestDropout:
    def test_the_same_seed_repeats(self, make_model, make_tokens):
        model, tokens = make_model(**DROPOUT), make_tokens(2, 7)
        first, memories = model(tokens, training=True, seed=SEED)
        model(tokens, training=True)  # Whatever is drawn in between.
        second, again = model(tokens, training=True, seed=SEED)
        np.testing.assert_array_equal(first, second)
        for name in memories:
            np.testing.assert_array_equal(memories[name], again[name])

    def test_another_seed_differs(self, make_model, make_tokens):
        model, tokens = make_model(**DROPOUT), make_tokens(2, 7)
        logits = [
            np.array(model(tokens, training=True, seed=np.array(seed))[0])
            for seed in ([17, 5], [17, 6], [18, 5])
        ]
        for i in range(3):
            assert np.max(np.abs(logits[i] - logits[i - 1])) > 1e-2

    def test_there_is_none_outside_training(self, make_model, make_tokens):
        tokens = make_tokens(2, 7)
        expected = make_model()(tokens)[0]
        model = make_model(**DROPOUT)
        for options in ({}, {"training": False}, {"seed": SEED}):
            logits, _ = model(tokens, **options)
            np.testing.assert_array_equal(logits, expected)
        trained, _ = model(tokens, training=True, seed=SEED)
        assert np.max(np.abs(trained - expected)) > 1e-2

    def test_without_a_seed_every_call_draws_anew(
        self, make_model, make_tokens
    ):
        model, tokens = make_model(**DROPOUT), make_tokens(2, 7)

        @tf.function
        def call(tokens):
            return model(tokens, training=True)[0]

        for function in (lambda x: model(x, training=True)[0], call):
            first, second = function(tokens), function(tokens)
            assert np.max(np.abs(first - second)) > 1e-2

    @pytest.mark.parametrize("rate", ["dropout", "attention_dropout"])
    def test_each_rate_acts_alone(self, make_model, make_tokens, rate):
        tokens = make_tokens(2, 7)
        expected = make_model()(tokens)[0]
        model = make_model(**{rate: 0.3})
        logits, _ = model(tokens, training=True, seed=SEED)
        assert np.max(np.abs(logits - expected)) > 1e-2

    def test_no_two_sites_share_a_mask(
        self, make_model, make_tokens, monkeypatch
    ):
        # Given a record of where dropout acts, and at which rate,
        sites = []

        def record(inputs, rate, seed, site):
            sites.append((site, rate))
            return inputs

        for module in (
            "layers.relative_attention",
            "layers.transformer_xl_block",
            "models.transformer_xl",
        ):
            monkeypatch.setattr(
                f"official_lrm.{module}.stateless_dropout", record
            )
        make_model(**DROPOUT)(make_tokens(2, 7), training=True, seed=SEED)
        # then it is at the embedding, the position table, the final hidden
        # state, and four times a layer, each a site of its own.
        assert len(sites) == len({site for site, _ in sites}) == 3 + 4 * 3
        rates = [rate for _, rate in sites]
        assert rates.count(0.2) == 3
        assert rates.count(0.3) == 3 + 3 * 3

    def test_the_first_memory_holds_the_embedding_after_dropout(
        self, make_model, make_tokens
    ):
        model = make_model((7, 3), dropout=0.3)
        _, memories = model(make_tokens(2, 7), training=True, seed=SEED)
        dropped = np.mean(np.array(memories["memory_00"]) == 0)
        # 196 elements: three standard deviations are 0.1.
        assert 0.2 < dropped < 0.4


class TestDtypes:
    def test_mixed_bfloat16_is_near_float32(
        self, make_model, make_tokens, run_segments
    ):
        spans, cuts = (53, 0, 11), [37, 37, 5]
        tokens = make_tokens(2, 79)
        model = make_model(spans)
        mixed = make_model(spans, dtype="mixed_bfloat16")
        logits, _ = run_segments(model, tokens, cuts)
        mixed_logits, memories = run_segments(mixed, tokens, cuts)
        assert mixed_logits.dtype == np.float32
        dtypes = {name: value.dtype.name for name, value in memories.items()}
        assert dtypes == {
            "memory_00": "bfloat16",
            "memory_02": "bfloat16",
            "position": "int32",
        }
        assert {weight.dtype for weight in mixed.weights} == {"float32"}
        # Log-probabilities, of a standard deviation of 2, differ by what 8
        # bits of mantissa cost in three layers with large weights.
        log_probs, mixed_log_probs = (
            np.array(keras.ops.log_softmax(x)) for x in (logits, mixed_logits)
        )
        error = np.abs(mixed_log_probs - log_probs)
        assert 0 < np.mean(error) < 0.06
        assert np.quantile(error, 0.99) < 0.4
        assert np.std(log_probs) > 1.5

    @pytest.mark.parametrize(
        ("policy", "expected"),
        [
            ("mixed_bfloat16", "float32"),
            ("bfloat16", "float32"),
            ("mixed_float16", "float32"),
            ("float64", "float64"),
        ],
    )
    def test_distances_are_never_in_half_precision(
        self, make_model, make_tokens, monkeypatch, policy, expected
    ):
        dtypes = []

        def record(*args, **kwargs):
            table = sinusoidal_positions(*args, **kwargs)
            dtypes.append(keras.backend.standardize_dtype(table.dtype))
            return table

        monkeypatch.setattr(
            "official_lrm.models.transformer_xl.sinusoidal_positions", record
        )
        make_model(dtype=policy)(make_tokens(2, 3))
        assert dtypes == [expected]

    def test_mixed_float16_is_finite(self, make_model, make_tokens):
        model = make_model(dtype="mixed_float16")
        logits, memories = model(make_tokens(2, 7))
        expected, _ = make_model()(make_tokens(2, 7))
        assert memories["memory_00"].dtype == "float16"
        np.testing.assert_allclose(logits, expected, atol=0.1)

    def test_float64(self, make_model, make_tokens):
        tokens = make_tokens(2, 7)
        model = make_model(dtype="float64")
        logits, memories = model(tokens)
        assert logits.dtype == "float64"
        assert memories["memory_00"].dtype == "float64"
        assert model.score(tokens, tokens)[0].dtype == "float64"
        # Not float32 in disguise.
        rounded = np.array(logits).astype("float32").astype("float64")
        assert np.all(rounded != np.array(logits))
        expected, _ = make_model()(tokens)
        np.testing.assert_allclose(logits, expected, atol=1e-5)

    def test_float32_is_float64_but_for_rounding_at_long_distances(
        self, make_model, make_tokens, run_segments
    ):
        # Softmax, layer norms and positions lose nothing over 600 tokens.
        tokens = make_tokens(2, 600)
        logits, double = (
            run_segments(make_model((499, 3), dtype=dtype), tokens, [300] * 2)
            for dtype in ("float32", "float64")
        )
        np.testing.assert_allclose(logits[0], double[0], atol=1e-3)


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


class TestConstruction:
    @pytest.mark.parametrize(
        ("argument", "value", "allowed"),
        [
            ("vocab_size", 0, "a positive integer"),
            ("vocab_size", -3, "a positive integer"),
            ("vocab_size", 19.0, "a positive integer"),
            ("vocab_size", "19", "a positive integer"),
            ("hidden_size", None, "a positive integer"),
            ("hidden_size", 0, "a positive integer"),
            ("hidden_size", 7, "even"),
            ("num_heads", True, "a positive integer"),
            ("num_heads", [3], "a positive integer"),
            ("head_size", 0, "a positive integer"),
            ("inner_size", -1, "a positive integer"),
            ("dropout", -0.1, "from 0 to below 1"),
            ("dropout", 1, "from 0 to below 1"),
            ("dropout", float("nan"), "from 0 to below 1"),
            ("dropout", "0.1", "from 0 to below 1"),
            ("dropout", True, "from 0 to below 1"),
            ("attention_dropout", 1.5, "from 0 to below 1"),
            ("attention_dropout", None, "from 0 to below 1"),
            ("clamp_length", 0, "a positive integer or None"),
            ("clamp_length", -1, "a positive integer or None"),
            ("clamp_length", 9.0, "a positive integer or None"),
            ("clamp_length", True, "a positive integer or None"),
            ("layer_norm_epsilon", 0, "a positive number"),
            ("layer_norm_epsilon", -1e-5, "a positive number"),
            ("layer_norm_epsilon", "1e-5", "a positive number"),
            ("layer_norm_epsilon", float("inf"), "a positive number"),
            ("initializer_stddev", -0.02, "a positive number"),
            ("initializer_stddev", None, "a positive number"),
        ],
    )
    def test_a_wrong_value_is_named(self, make_model, argument, value, allowed):
        sizes = {
            "vocab_size": 19,
            "hidden_size": 14,
            "num_heads": 3,
            "head_size": 5,
            "inner_size": 17,
        }
        arguments = {"spans": UNEVEN, **sizes, argument: value}
        with pytest.raises(ValueError) as info:
            lrm.TransformerXLLanguageModel(**arguments)
        message = str(info.value)
        assert message.startswith(f"{argument} must be ")
        assert allowed in message
        assert message.endswith(f"got {value!r}.")
        assert "\n" not in message

    @pytest.mark.parametrize(
        ("argument", "value", "allowed"),
        [
            ("cutoffs", (3, 5), "()"),
            ("cutoffs", 3, "()"),
            ("cutoffs", None, "()"),
            ("div_value", 2, "1"),
            ("embedding_size", 13, "None"),
            ("tie_embeddings", False, "True"),
            ("share_projections", False, "True"),
        ],
    )
    def test_what_only_the_adaptive_softmax_knows(
        self, make_model, argument, value, allowed
    ):
        with pytest.raises(ValueError) as info:
            make_model(**{argument: value})
        message = str(info.value)
        assert message.startswith(f"{argument} must be {allowed}: ")
        assert message.endswith(f"got {value!r}.")
        assert "\n" not in message

    @pytest.mark.parametrize(
        ("spans", "got"),
        [
            (5, "got 5"),
            ([], "got an empty sequence"),
            ([5, -1], "got -1"),
            ({5, 3}, "got {3, 5}"),
        ],
    )
    def test_wrong_spans(self, make_model, spans, got):
        with pytest.raises(ValueError, match=f"^lengths must .*{got}"):
            make_model(spans)

    def test_an_unknown_argument_is_refused(self, make_model):
        with pytest.raises((TypeError, ValueError), match="num_layers"):
            make_model(num_layers=3)

    def test_no_adaptive_softmax_may_be_said_in_other_words(self, make_model):
        model = make_model(cutoffs=[], embedding_size=14, div_value=1)
        assert model.vocab_size == 19
        assert model.hidden_size == 14

    def test_numbers_of_numpy(self, make_model, make_tokens):
        model = lrm.TransformerXLLanguageModel(
            vocab_size=np.int64(19),
            spans=np.array([5, 0, 11]),
            hidden_size=np.int32(14),
            num_heads=np.int64(3),
            head_size=np.int64(5),
            inner_size=np.int64(17),
            dropout=np.float32(0.25),
            clamp_length=np.int64(7),
        )
        assert model.spans == lrm.MemorySpans([5, 0, 11])
        config = model.get_config()
        kinds = {name: type(value) for name, value in config.items()}
        assert kinds["vocab_size"] is kinds["clamp_length"] is int
        assert kinds["dropout"] is float
        assert model(make_tokens(2, 7))[0].shape == (2, 7, 19)

    def test_a_clamp_acts_on_distances_beyond_it(self, make_model, make_tokens):
        tokens = make_tokens(2, 7)
        expected = make_model()(tokens)[0]
        # Distances are up to 6: a clamp of 6 does nothing, one of 2 does.
        far, near = (
            make_model(clamp_length=clamp)(tokens)[0] for clamp in (6, 2)
        )
        np.testing.assert_allclose(far, expected, atol=1e-6)
        np.testing.assert_allclose(near[:, :3], expected[:, :3], atol=1e-6)
        assert np.all(np.max(np.abs(near - expected), axis=-1)[:, 3:] > 1e-4)
