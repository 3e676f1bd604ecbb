"""The contracts of a language model whose vocabulary is in clusters."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from official_lrm.memory import reset_lanes
from official_lrm.models.sampling import sample_tokens

UNEVEN = (5, 0, 11)
# Clusters of 5, 3 and 11 tokens.
CUTOFFS = (5, 8)
ADAPTIVE = {"cutoffs": CUTOFFS, "div_value": 2}
OPTIONS = [
    ADAPTIVE,
    {
        "cutoffs": CUTOFFS,
        "embedding_size": 23,
        "tie_embeddings": False,
        "share_projections": False,
    },
    {"embedding_size": 23},
]
DROPOUT = {"dropout": 0.3, "attention_dropout": 0.2}
SEED = np.array([17, 5], "int32")


def gathered(outputs, targets):
    """Log-probabilities of targets from logits, or from themselves."""
    log_probs = np.array(keras.ops.log_softmax(outputs))
    return np.take_along_axis(log_probs, targets[..., None], -1)[..., 0]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
class TestCalls:
    def test_with_cutoffs_they_give_log_probabilities(
        self, make_model, make_tokens, options
    ):
        logits, _ = make_model(**options)(make_tokens(2, 7))
        assert logits.shape == (2, 7, 19) and logits.dtype == "float32"
        total = np.log(np.sum(np.exp(logits), axis=-1))
        if "cutoffs" in options:
            np.testing.assert_allclose(total, 0, atol=1e-5)
        else:
            assert np.max(np.abs(total)) > 0.1

    def test_scores_are_those_of_a_call(self, make_model, make_tokens, options):
        model = make_model(**options)
        tokens, targets = make_tokens(2, 7), make_tokens(2, 7, seed=5)
        _, memories = model(make_tokens(2, 13, seed=7))
        logits, after = model(tokens, memories)
        log_probs, after_score = model.score(tokens, targets, memories)
        np.testing.assert_allclose(
            log_probs, gathered(logits, targets), atol=1e-5
        )
        for name in after:
            np.testing.assert_array_equal(after_score[name], after[name])

    def test_next_logits_are_the_last_of_a_call(
        self, make_model, make_tokens, options
    ):
        model, tokens = make_model(**options), make_tokens(2, 7)
        logits, after = model(tokens)
        last, memories = model.next_logits(tokens)
        assert last.shape == (2, 19)
        np.testing.assert_allclose(last, logits[:, -1], atol=1e-5)
        for name in after:
            np.testing.assert_array_equal(memories[name], after[name])

    def test_other_spans_share_the_weights(
        self, make_model, make_tokens, run_segments, options
    ):
        model, tokens = make_model(UNEVEN, **options), make_tokens(2, 14)
        other = model.with_spans((0, 3, 17))
        assert all(
            first is second
            for first, second in zip(model.weights, other.weights, strict=True)
        )
        fresh = make_model((0, 3, 17), weights_seed=3, **options)
        fresh.set_weights(model.get_weights())
        np.testing.assert_allclose(
            run_segments(other, tokens, [7, 7])[0],
            run_segments(fresh, tokens, [7, 7])[0],
            atol=1e-6,
        )

    def test_gradients_reach_every_variable(
        self, make_model, make_tokens, options
    ):
        model = make_model(**options, **DROPOUT)
        # Targets of all clusters, and inputs.
        tokens = np.arange(19, dtype="int32")[None]
        with tf.GradientTape() as tape:
            log_probs, _ = model.score(
                tokens, tokens[:, ::-1].copy(), None, True, SEED
            )
            loss = -tf.reduce_mean(log_probs)
        variables = model.trainable_variables
        for variable, gradient in zip(
            variables, tape.gradient(loss, variables), strict=True
        ):
            assert gradient is not None, variable.path
            gradient = np.array(tf.convert_to_tensor(gradient))
            assert np.all(np.isfinite(gradient)), variable.path
            assert np.max(np.abs(gradient)) > 1e-6, variable.path


def test_an_optimizer_takes_sparse_gradients(make_model, make_tokens):
    # The embedding's own tables have no others.
    model = make_model(**ADAPTIVE, tie_embeddings=False)
    optimizer = keras.optimizers.Adam(1e-2)
    tokens, targets = make_tokens(2, 7), make_tokens(2, 7, seed=5)
    losses = []
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(model.score(tokens, targets)[0])
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        optimizer.apply(gradients, variables)
        losses.append(float(loss))
    assert any(isinstance(x, tf.IndexedSlices) for x in gradients)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.1


class TestScore:
    def test_it_drops_as_a_call_does(self, make_model, make_tokens):
        model, tokens = make_model(**ADAPTIVE, **DROPOUT), make_tokens(2, 7)
        logits, _ = model(tokens, training=True, seed=SEED)
        log_probs, _ = model.score(tokens, tokens, training=True, seed=SEED)
        np.testing.assert_allclose(
            log_probs, gathered(logits, tokens), atol=1e-5
        )

    def test_no_lanes(self, make_model, make_tokens):
        log_probs, _ = make_model(**ADAPTIVE).score(
            make_tokens(0, 7), make_tokens(0, 7)
        )
        assert log_probs.shape == (0, 7)

    @pytest.mark.parametrize("which", ["tokens", "targets"])
    @pytest.mark.parametrize("token", [19, -1])
    @pytest.mark.parametrize("options", [{}, ADAPTIVE], ids=str)
    def test_tokens_that_there_are_not_are_refused(
        self, make_model, make_tokens, which, token, options
    ):
        tokens = {name: make_tokens(2, 7) for name in ("tokens", "targets")}
        tokens[which][1, 3] = token
        with pytest.raises(tf.errors.InvalidArgumentError):
            make_model(**options).score(**tokens)

    def test_resetting_a_lane_leaves_the_others_bit_for_bit(
        self, make_model, make_tokens
    ):
        # Tokens of all lanes are sorted by cluster: each must find back.
        model = make_model(**ADAPTIVE)
        tokens, targets = make_tokens(3, 7), make_tokens(3, 7, seed=5)
        _, memories = model(make_tokens(3, 13, seed=7))
        reset = reset_lanes(memories, np.array([False, True, False]))
        before, after = (
            np.array(model.score(tokens, targets, m)[0])
            for m in (memories, reset)
        )
        for lane in (0, 2):
            assert before[lane].tobytes() == after[lane].tobytes()
        assert np.any(before[1] != after[1])
        fresh, _ = model.score(tokens, targets)
        np.testing.assert_array_equal(after[1], fresh[1])

    def test_permuting_lanes_permutes_scores(self, make_model, make_tokens):
        model, order = make_model(**ADAPTIVE), [2, 0, 1]
        tokens, targets = make_tokens(3, 7), make_tokens(3, 7, seed=5)
        log_probs, _ = model.score(tokens, targets)
        permuted, _ = model.score(tokens[order], targets[order])
        np.testing.assert_allclose(
            permuted, np.array(log_probs)[order], atol=1e-5
        )

    def test_a_target_changes_its_own_score_only(self, make_model, make_tokens):
        model, tokens = make_model(**ADAPTIVE), make_tokens(2, 7)
        targets = make_tokens(2, 7, seed=5)
        before, _ = model.score(tokens, targets)
        for token in (2, 6, 13):  # One of each cluster.
            changed = targets.copy()
            changed[1, 3] = token if targets[1, 3] != token else token + 1
            after, _ = model.score(tokens, changed)
            same = np.abs(after - before) < 1e-5
            expected = np.ones([2, 7], bool)
            expected[1, 3] = False
            np.testing.assert_array_equal(same, expected)

    def test_with_unknown_lanes_and_length(self, make_model, make_tokens):
        model, traces = make_model(**ADAPTIVE), []

        @tf.function(input_signature=[tf.TensorSpec([None, None], "int32")] * 2)
        def score(tokens, targets):
            traces.append(1)
            return model.score(tokens, targets)

        for shape in ((2, 7), (3, 1), (1, 17)):
            tokens, targets = make_tokens(*shape), make_tokens(*shape, seed=5)
            log_probs, _ = score(tokens, targets)
            expected, _ = model.score(tokens, targets)
            np.testing.assert_allclose(log_probs, expected, atol=1e-5)
        assert len(traces) == 1

    def test_symbolically(self, make_model, make_tokens):
        model = make_model(**ADAPTIVE)
        tokens = keras.Input([None], dtype="int32")
        logits, memories = model(tokens)
        assert logits.shape == (None, None, 19)
        graph = keras.Model(tokens, [logits, memories])
        segment = tf.constant(make_tokens(3, 5))
        np.testing.assert_allclose(
            graph(segment)[0], model(segment)[0], atol=1e-5
        )


class TestPrecision:
    @pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
    def test_half_precision_is_near_float32(
        self, make_model, make_tokens, policy
    ):
        tokens, targets = make_tokens(2, 7), make_tokens(2, 7, seed=5)
        model, half = (
            make_model(weights_seed=3, **ADAPTIVE),
            make_model(weights_seed=3, **ADAPTIVE, dtype=policy),
        )
        assert {weight.dtype for weight in half.weights} == {"float32"}
        expected, _ = model.score(tokens, targets)
        log_probs, memories = half.score(tokens, targets)
        assert log_probs.dtype == "float32"
        assert memories["memory_00"].dtype == policy.removeprefix("mixed_")
        tolerance = 0.3 if policy == "mixed_bfloat16" else 0.05
        np.testing.assert_allclose(log_probs, expected, atol=tolerance)
        assert np.std(expected) > 1
        # The softmax itself runs in float32: what a call gives for the same
        # hidden states is the same to its last bits.
        logits, _ = half(tokens)
        np.testing.assert_allclose(
            log_probs, gathered(logits, targets), atol=1e-5
        )

    @pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
    @pytest.mark.parametrize("options", [{}, ADAPTIVE], ids=str)
    def test_large_logits_do_not_overflow(
        self, make_model, make_tokens, policy, options
    ):
        # Given tables so large that logits are hundreds, and a softmax's
        # exponentials beyond all float16 and float32 numbers,
        model = make_model(dtype=policy, tie_embeddings=False, **options)
        for table in model.softmax.tables:
            table.assign(table * 100)
        tokens, targets = make_tokens(2, 7), make_tokens(2, 7, seed=5)
        with tf.GradientTape() as tape:
            log_probs, _ = model.score(tokens, targets)
        gradients = tape.gradient(log_probs, model.trainable_variables)
        # then scores and gradients are finite, and right.
        assert np.min(log_probs) < -100
        np.testing.assert_allclose(
            log_probs, gathered(model(tokens)[0], targets), atol=1e-3
        )
        for variable, gradient in zip(
            model.trainable_variables, gradients, strict=True
        ):
            gradient = np.array(tf.convert_to_tensor(gradient))
            assert np.all(np.isfinite(gradient)), variable.path

    def test_float64(self, make_model, make_tokens):
        model = make_model(**ADAPTIVE, dtype="float64")
        tokens = make_tokens(2, 7)
        logits, _ = model(tokens)
        log_probs, _ = model.score(tokens, tokens)
        assert logits.dtype == log_probs.dtype == "float64"
        np.testing.assert_allclose(
            log_probs, gathered(logits, tokens), atol=1e-12
        )


class TestSampling:
    def test_temperature_and_filters_take_log_probabilities_for_logits(
        self, make_model, make_tokens
    ):
        # Given log-probabilities, and logits of the same softmax,
        log_probs, _ = make_model(**ADAPTIVE).next_logits(make_tokens(1, 7))
        lanes = 4001
        log_probs = np.repeat(np.array(log_probs), lanes, axis=0)
        shift = np.random.default_rng(2).normal(size=(lanes, 1)) * 5
        drawn = []
        for logits in (log_probs, log_probs + shift):
            tokens = sample_tokens(
                logits.astype("float32"),
                np.full(lanes, 0.5, "float32"),
                np.full(lanes, 7, "int32"),
                np.full(lanes, 0.9, "float32"),
                np.full((lanes, 2), 13, "uint32"),
                np.arange(lanes, dtype="int32"),
            )
            drawn.append(np.array(tokens))
        # then the same tokens are drawn, but for a rounding,
        assert np.mean(drawn[0] != drawn[1]) < 0.002
        # as often as the squares of the probabilities say, which a
        # temperature of a half is, and none that the filters leave out.
        squares = np.exp(2 * log_probs[0].astype("float64"))
        ranked = np.argsort(-squares)[:7]
        total = np.cumsum(squares[ranked]) / np.sum(squares[ranked])
        kept = ranked[: np.searchsorted(total, 0.9) + 1]
        assert 1 < len(kept) < 7
        counts = np.bincount(drawn[0], minlength=19)
        expected = np.zeros(19)
        expected[kept] = squares[kept] / np.sum(squares[kept])
        # Five standard deviations of 4001 draws are 0.04 at most.
        np.testing.assert_allclose(counts / lanes, expected, atol=0.04)
        assert not np.any(counts[expected == 0])
