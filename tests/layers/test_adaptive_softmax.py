"""Tests of the softmax in clusters: its numbers, shapes and refusals."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from official_lrm.layers import AdaptiveEmbedding, AdaptiveSoftmax

# Clusters of 7, 13 and 17 tokens.
V, D = 37, 19
CUTOFFS = (7, 20)
ADAPTIVE = {"cutoffs": CUTOFFS, "div_value": 2}


def options_of(cutoffs, sizes, div_values=(1, 2, 4)):
    names = "div_value", "embedding_size", "tie_embeddings", "share_projections"
    return [
        {"cutoffs": cutoffs, **dict(zip(names, values, strict=True))}
        for values in itertools.product(
            div_values, sizes, [True, False], [True, False]
        )
    ]


PLAIN = options_of((), [None, 23], [1, 2])
CLUSTERED = [
    *options_of(CUTOFFS, [None, 23]),
    {"cutoffs": CUTOFFS, "embedding_size": 17, "div_value": 4},
    {"cutoffs": (29,), "div_value": 2},
    {"cutoffs": (1, 2, 31, 36), "div_value": 2},
]

# [2, 5] targets. The first and the last of every cluster.
TARGETS = {
    "all clusters": [[0, 6, 7, 19, 20], [36, 3, 11, 29, 7]],
    "first only": [[0, 6, 3, 3, 5], [1, 2, 0, 4, 6]],
    "middle only": [[7, 19, 11, 11, 8], [12, 9, 7, 18, 19]],
    "last only": [[20, 36, 29, 29, 21], [30, 35, 20, 22, 36]],
    "first empty": [[36, 7, 19, 20, 8], [9, 30, 21, 11, 7]],
    "middle empty": [[36, 0, 1, 20, 6], [2, 30, 21, 5, 29]],
    "last empty": [[19, 0, 1, 7, 6], [2, 11, 8, 5, 0]],
}
TARGETS = {name: np.array(value, "int32") for name, value in TARGETS.items()}


def gathered(log_probs, targets):
    taken = np.take_along_axis(np.array(log_probs), targets[..., None], -1)
    return taken[..., 0]


class TestWithoutCutoffs:
    @pytest.mark.parametrize("options", PLAIN, ids=str)
    def test_it_is_the_equation(
        self, make_layers, make_hidden, equations, options
    ):
        embedding, softmax = make_layers(**options)
        hidden, targets = make_hidden(2, 5), TARGETS["all clusters"]
        logits = softmax(hidden, embedding=embedding)
        expected = equations(embedding, softmax).logits(hidden)
        np.testing.assert_allclose(logits, expected, atol=1e-12)
        # Unnormalised, but for the targets' log-probabilities.
        log_probs = softmax(hidden, embedding=embedding, targets=targets)
        total = np.log(np.sum(np.exp(expected), axis=-1))
        assert np.all(np.abs(total) > 1e-3)
        np.testing.assert_allclose(
            log_probs, gathered(expected, targets) - total, atol=1e-12
        )

    def test_logits_are_products_with_the_table(self):
        embedding = AdaptiveEmbedding(5, 4)
        embedding.build()
        embedding.tables[0].assign(np.arange(20.0).reshape(5, 4) / 10)
        softmax = AdaptiveSoftmax(5, 4)
        softmax.build()
        softmax.bias.assign([0.0, 0.1, 0.2, 0.3, 0.4])
        # Given a hidden state that picks out the second column,
        hidden = np.array([[[0.0, 1.0, 0.0, 0.0]]], "float32")
        logits = softmax(hidden, embedding=embedding)
        # then the logits are that column, unscaled, and the bias.
        np.testing.assert_allclose(
            logits, [[[0.1, 0.6, 1.1, 1.6, 2.1]]], rtol=1e-6
        )


@pytest.mark.parametrize("options", CLUSTERED, ids=str)
class TestWithCutoffs:
    def test_it_is_the_equation(
        self, make_layers, make_hidden, equations, options
    ):
        embedding, softmax = make_layers(**options)
        hidden = make_hidden(2, 5)
        log_probs = softmax(hidden, embedding=embedding)
        assert log_probs.shape == (2, 5, V)
        expected = equations(embedding, softmax).all_log_probs(hidden)
        np.testing.assert_allclose(log_probs, expected, atol=1e-12)
        total = np.sum(np.exp(log_probs), axis=-1)
        np.testing.assert_allclose(total, 1, rtol=1e-12)

    @pytest.mark.parametrize("chunk", [1, 2**24], ids=["many", "one"])
    def test_the_targets(
        self, make_layers, make_hidden, equations, max_elements, options, chunk
    ):
        # 1: chunks are of 8 rows, the fewest there are.
        max_elements(chunk)
        embedding, softmax = make_layers(**options)
        hidden, targets = make_hidden(2, 5), TARGETS["all clusters"]
        log_probs = softmax(hidden, embedding=embedding, targets=targets)
        expected = equations(embedding, softmax).log_probs(hidden, targets)
        np.testing.assert_allclose(log_probs, expected, atol=1e-12)


class TestTargets:
    @pytest.mark.parametrize("chunk", [1, 2**24], ids=["many", "one"])
    @pytest.mark.parametrize("targets", TARGETS.values(), ids=list(TARGETS))
    def test_of_some_clusters_only(
        self, make_layers, make_hidden, max_elements, targets, chunk
    ):
        max_elements(chunk)
        embedding, softmax = make_layers(**ADAPTIVE)
        hidden = make_hidden(2, 5)
        expected = gathered(softmax(hidden, embedding=embedding), targets)
        log_probs = softmax(hidden, embedding=embedding, targets=targets)
        np.testing.assert_allclose(log_probs, expected, atol=1e-12)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 41)], ids=str)
    @pytest.mark.parametrize("token", [None, 3, 11, 29])
    def test_shapes(self, make_layers, make_hidden, max_elements, shape, token):
        max_elements(1)
        embedding, softmax = make_layers(**ADAPTIVE)
        hidden = make_hidden(*shape)
        targets = np.random.default_rng(5).integers(0, V, shape)
        if token is not None:
            targets = np.full(shape, token)
        expected = gathered(softmax(hidden, embedding=embedding), targets)
        log_probs = softmax(hidden, embedding=embedding, targets=targets)
        assert log_probs.shape == shape
        np.testing.assert_allclose(log_probs, expected, atol=1e-12)

    @pytest.mark.parametrize("shape", [(0, 5), (2, 0)], ids=str)
    @pytest.mark.parametrize("options", [{}, ADAPTIVE], ids=str)
    def test_none(self, make_layers, make_hidden, shape, options):
        embedding, softmax = make_layers(**options)
        hidden = make_hidden(*shape)
        log_probs = softmax(
            hidden, embedding=embedding, targets=np.zeros(shape, "int32")
        )
        assert log_probs.shape == shape
        assert softmax(hidden, embedding=embedding).shape == (*shape, V)

    @pytest.mark.parametrize("dtype", ["int64", "int16", "uint8"])
    @pytest.mark.parametrize("options", [{}, ADAPTIVE], ids=str)
    def test_of_any_integer_type(
        self, make_layers, make_hidden, dtype, options
    ):
        embedding, softmax = make_layers(**options)
        hidden, targets = make_hidden(2, 5), TARGETS["all clusters"]
        expected = softmax(hidden, embedding=embedding, targets=targets)
        log_probs = softmax(
            hidden, embedding=embedding, targets=targets.astype(dtype)
        )
        np.testing.assert_array_equal(log_probs, expected)

    @pytest.mark.parametrize("options", [{}, ADAPTIVE], ids=str)
    def test_that_there_are_not_are_refused(
        self, make_layers, make_hidden, options
    ):
        embedding, softmax = make_layers(**options)

        def call(hidden, targets):
            return softmax(hidden, embedding=embedding, targets=targets)

        for function in (call, tf.function(call)):
            for token in (V, V + 1, -1, -V, 2**31 - 1, -(2**31)):
                targets = TARGETS["all clusters"].copy()
                targets[1, 2] = token
                with pytest.raises(tf.errors.InvalidArgumentError):
                    function(make_hidden(2, 5), targets)

    @pytest.mark.parametrize("options", [{}, ADAPTIVE], ids=str)
    def test_of_unknown_lanes_and_length(
        self, make_layers, make_hidden, max_elements, options
    ):
        max_elements(1)
        embedding, softmax = make_layers(**options)
        traces = []

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None, D], "float64"),
                tf.TensorSpec([None, None], "int32"),
            ],
        )
        def call(hidden, targets):
            traces.append(1)
            return softmax(hidden, embedding=embedding, targets=targets)

        for shape in [(2, 5), (1, 1), (3, 11)]:
            hidden = make_hidden(*shape)
            targets = np.random.default_rng(7).integers(0, V, shape, "int32")
            expected = softmax(hidden, embedding=embedding, targets=targets)
            np.testing.assert_allclose(
                call(hidden, targets), expected, atol=1e-12
            )
        assert len(traces) == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"bias": (37,)}),
        ({"embedding_size": 23}, {"projection_0": (23, 19)}),
        (
            {"tie_embeddings": False, "share_projections": False},
            {"table_0": (37, 19)},
        ),
        (
            {"cutoffs": CUTOFFS},
            {"cluster_kernel": (2, 19), "cluster_bias": (2,)},
        ),
        (
            {
                "cutoffs": CUTOFFS,
                "div_value": 4,
                "embedding_size": 23,
                "tie_embeddings": False,
                "share_projections": False,
            },
            {
                "cluster_kernel": (2, 23),
                "cluster_bias": (2,),
                "table_0": (7, 23),
                "table_1": (13, 5),
                "table_2": (17, 1),
                "projection_0": (23, 19),
                "projection_1": (5, 19),
                "projection_2": (1, 19),
            },
        ),
        (
            {**ADAPTIVE, "tie_embeddings": False},
            {
                "cluster_kernel": (2, 19),
                "cluster_bias": (2,),
                "table_0": (7, 19),
                "table_1": (13, 9),
                "table_2": (17, 4),
                "projection_0": (19, 19),
            },
        ),
        (
            {
                "cutoffs": CUTOFFS,
                "embedding_size": 23,
                "share_projections": False,
            },
            {
                "cluster_kernel": (2, 23),
                "cluster_bias": (2,),
                "projection_0": (23, 19),
                "projection_1": (23, 19),
                "projection_2": (23, 19),
            },
        ),
    ],
    ids=str,
)
def test_own_weights(options, expected):
    softmax = AdaptiveSoftmax(V, D, **options)
    softmax.build()
    shapes = {weight.name: weight.shape for weight in softmax.weights}
    assert shapes == {"bias": (37,), **expected}
    # Before training, biases are 0 and all clusters' shares are the same.
    for weight in softmax.weights:
        is_zero = not np.any(np.array(weight))
        assert is_zero == ("bias" in weight.name or "kernel" in weight.name)


def test_initial_weights_have_the_standard_deviations_asked_for():
    keras.utils.set_random_seed(3)
    softmax = AdaptiveSoftmax(
        997,
        101,
        cutoffs=(499,),
        div_value=2,
        tie_embeddings=False,
        share_projections=False,
        initializer_stddev=0.5,
        projection_initializer_stddev=0.125,
    )
    softmax.build()
    for table in softmax.tables:
        assert np.std(table) == pytest.approx(0.5, rel=0.03)
    for projection in softmax.projections:
        assert np.std(projection) == pytest.approx(0.125, rel=0.03)


class TestPrecision:
    @pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
    @pytest.mark.parametrize("options", [{}, ADAPTIVE], ids=str)
    def test_the_tables_are_not_rounded(
        self, make_layers, make_hidden, equations, policy, options
    ):
        embedding, softmax = make_layers(policy, **options)
        # Given a hidden state in half precision,
        half = policy.removeprefix("mixed_")
        hidden = tf.cast(make_hidden(2, 5), half)
        targets = TARGETS["all clusters"]
        outputs = softmax(hidden, embedding=embedding)
        log_probs = softmax(hidden, embedding=embedding, targets=targets)
        assert outputs.dtype == log_probs.dtype == "float32"
        # then nothing else is: what comes out is what float64 gives for it, up
        # to float32's rounding, a thousandth of half precision's.
        of = equations(embedding, softmax)
        hidden = np.array(tf.cast(hidden, "float64"))
        expected = of.all_log_probs(hidden)
        if not options:
            outputs = tf.nn.log_softmax(outputs)
        np.testing.assert_allclose(outputs, expected, atol=1e-5)
        np.testing.assert_allclose(
            log_probs, gathered(expected, targets), atol=1e-5
        )

    @pytest.mark.parametrize("options", [{}, ADAPTIVE], ids=str)
    @pytest.mark.parametrize("chunk", [1, 2**24], ids=["many", "one"])
    @pytest.mark.parametrize("offset", [0, 300, -300])
    def test_large_logits(
        self, make_layers, make_hidden, max_elements, options, chunk, offset
    ):
        # Given logits of hundreds,
        max_elements(chunk)
        hidden, targets = make_hidden(2, 5) * 50, TARGETS["all clusters"]
        double, single = (
            make_layers(dtype, **options) for dtype in ("float64", "float32")
        )
        results = []
        for embedding, softmax in (double, single):
            softmax.bias.assign(softmax.bias + offset)
            with tf.GradientTape() as tape:
                log_probs = softmax(
                    hidden, embedding=embedding, targets=targets
                )
            weights = [*embedding.tables, *softmax.weights]
            gradients = tape.gradient(log_probs, [w.value for w in weights])
            results.append([log_probs, *map(tf.convert_to_tensor, gradients)])
        assert np.ptp(results[0][0]) > 100
        # then log-probabilities and gradients are float64's.
        for expected, value in zip(*results, strict=True):
            assert value.dtype == "float32"
            np.testing.assert_allclose(value, expected, atol=1e-2, rtol=1e-3)

    def test_float64(self, make_layers, make_hidden):
        for options in ({}, ADAPTIVE):
            embedding, softmax = make_layers("float64", **options)
            for targets in (None, TARGETS["all clusters"]):
                outputs = softmax(
                    make_hidden(2, 5), embedding=embedding, targets=targets
                )
                assert outputs.dtype == "float64"


@pytest.mark.parametrize("cutoffs", [(), CUTOFFS], ids=str)
def test_config_round_trip(cutoffs):
    softmax = AdaptiveSoftmax(
        V,
        D,
        cutoffs=cutoffs,
        div_value=3,
        embedding_size=23,
        tie_embeddings=False,
        share_projections=False,
        initializer_stddev=0.3,
        projection_initializer_stddev=0.7,
        dtype="float64",
        name="b",
    )
    config = softmax.get_config()
    again = AdaptiveSoftmax.from_config(config)
    assert again.get_config() == config
    assert again.dtype_policy == softmax.dtype_policy
    for layer in (softmax, again):
        layer.build()
    assert [w.shape for w in again.weights] == [
        w.shape for w in softmax.weights
    ]
    registered = keras.saving.serialize_keras_object(softmax)
    assert registered["registered_name"] == "official_lrm>AdaptiveSoftmax"
    assert keras.saving.deserialize_keras_object(registered).get_config() == (
        config
    )


def test_the_dtype_does_not_follow_the_global_policy():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert AdaptiveSoftmax(V, D).compute_dtype == "float32"
    finally:
        keras.config.set_dtype_policy("float32")
