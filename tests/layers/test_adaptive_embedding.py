"""Tests of the embedding whose width falls with a token's frequency."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from official_lrm.layers import AdaptiveEmbedding

V, D = 37, 19
CUTOFFS = (7, 20)
# The first and last tokens of every cluster, and some in between.
TOKENS = np.array([[0, 6, 7, 19, 20], [36, 3, 11, 29, 7]], "int32")

OPTIONS = [
    {"cutoffs": cutoffs, "div_value": div_value, "embedding_size": size}
    for cutoffs, div_value, size in itertools.product(
        [(), (7, 20)], [1, 2, 4], [None, 17, 23]
    )
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_the_equation(make_layers, equations, options):
    embedding, softmax = make_layers(**options)
    embedded = embedding(TOKENS)
    assert embedded.shape == (2, 5, D)
    expected = equations(embedding, softmax).embed(TOKENS)
    np.testing.assert_allclose(embedded, expected, rtol=1e-12)
    assert np.std(expected) > 1


def test_rows_are_scaled_by_the_root_of_the_hidden_size():
    embedding = AdaptiveEmbedding(5, 4)
    embedding.build()
    embedding.tables[0].assign(np.arange(20.0).reshape(5, 4) / 10)
    embedded = embedding(np.array([[3, 0, 4]]))
    np.testing.assert_allclose(
        embedded,
        [[[2.4, 2.6, 2.8, 3.0], [0.0, 0.2, 0.4, 0.6], [3.2, 3.4, 3.6, 3.8]]],
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("options", "tables", "projections"),
    [
        ({}, [(37, 19)], []),
        ({"embedding_size": 23}, [(37, 23)], [(23, 19)]),
        ({"div_value": 2}, [(37, 19)], [(19, 19)]),
        ({"cutoffs": CUTOFFS}, [(7, 19), (13, 19), (17, 19)], []),
        (
            {"cutoffs": CUTOFFS, "embedding_size": 23},
            [(7, 23), (13, 23), (17, 23)],
            [(23, 19)],
        ),
        (
            {"cutoffs": CUTOFFS, "div_value": 4},
            [(7, 19), (13, 4), (17, 1)],
            [(19, 19), (4, 19), (1, 19)],
        ),
    ],
    ids=str,
)
def test_weights(options, tables, projections):
    embedding = AdaptiveEmbedding(V, D, **options)
    embedding.build()
    assert [table.shape for table in embedding.tables] == tables
    assert [p.shape for p in embedding.projections] == projections
    assert len(embedding.weights) == len(tables) + len(projections)
    for index in range(len(tables)):
        projection = embedding.projection(index)
        if not projections:
            assert projection is None
        else:
            # One of several clusters serves all of them.
            assert (
                projection
                is embedding.projections[index if len(projections) > 1 else 0]
            )


def test_initial_weights_have_the_standard_deviations_asked_for():
    embedding = AdaptiveEmbedding(
        997,
        101,
        cutoffs=(499,),
        div_value=2,
        initializer_stddev=0.5,
        projection_initializer_stddev=0.125,
    )
    embedding.build()
    for table in embedding.tables:
        assert np.std(table) == pytest.approx(0.5, rel=0.03)
    for projection in embedding.projections:
        assert np.std(projection) == pytest.approx(0.125, rel=0.03)


@pytest.mark.parametrize(
    "options", [{}, {"cutoffs": CUTOFFS, "div_value": 2}], ids=str
)
@pytest.mark.parametrize("token", [V, V + 1, -1, -V, 2**31 - 1, -(2**31)])
def test_tokens_that_there_are_not_are_refused(make_layers, options, token):
    embedding, _ = make_layers(**options)
    tokens = TOKENS.copy()
    tokens[1, 2] = token
    for function in (embedding, tf.function(embedding)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="not in"):
            function(tokens)


@pytest.mark.parametrize("shape", [(1, 1), (0, 5), (2, 0)], ids=str)
def test_small_shapes(make_layers, equations, shape):
    embedding, softmax = make_layers(cutoffs=CUTOFFS, div_value=2)
    tokens = np.full(shape, 11, "int32")
    expected = equations(embedding, softmax).embed(tokens)
    np.testing.assert_allclose(embedding(tokens), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cutoffs": CUTOFFS, "embedding_size": 23},
        {"cutoffs": CUTOFFS, "div_value": 4},
    ],
    ids=str,
)
def test_gradients(make_layers, options):
    embedding, _ = make_layers(**options)
    upstream = np.random.default_rng(5).normal(size=(2, 5, D))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(embedding(TOKENS) * upstream)
    gradients = tape.gradient(loss, [x.value for x in embedding.weights])
    # Given what each token adds to its table's row and its projection,
    expected = {x.path: np.zeros(x.shape) for x in embedding.weights}
    starts = [0, *options.get("cutoffs", ())]
    for place, token in np.ndenumerate(TOKENS):
        i = sum(start <= token for start in starts) - 1
        row, slope = token - starts[i], np.sqrt(D) * upstream[place]
        projection = embedding.projection(i)
        if projection is not None:
            vector = np.array(embedding.tables[i])[row]
            expected[projection.path] += np.outer(vector, slope)
            slope = np.array(projection) @ slope
        expected[embedding.tables[i].path][row] += slope
    # then that is the gradient.
    for weight, gradient in zip(embedding.weights, gradients, strict=True):
        np.testing.assert_allclose(
            tf.convert_to_tensor(gradient),
            expected[weight.path],
            atol=1e-12,
            err_msg=weight.path,
        )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision(make_layers, equations, policy):
    embedding, softmax = make_layers(policy, cutoffs=CUTOFFS, div_value=2)
    assert {weight.dtype for weight in embedding.weights} == {"float32"}
    embedded = embedding(TOKENS)
    assert embedded.dtype == policy.removeprefix("mixed_")
    expected = equations(embedding, softmax).embed(TOKENS)
    np.testing.assert_allclose(
        tf.cast(embedded, "float32"), expected, rtol=0.02, atol=0.1
    )


@pytest.mark.parametrize("dtype", ["int64", "int16"])
def test_tokens_of_other_integer_types(make_layers, dtype):
    embedding, _ = make_layers(cutoffs=CUTOFFS, div_value=2)
    np.testing.assert_array_equal(
        embedding(TOKENS.astype(dtype)), embedding(TOKENS)
    )


def test_symbolically(make_layers):
    embedding, _ = make_layers(cutoffs=CUTOFFS, div_value=2)
    tokens = keras.Input([None], dtype="int32")
    assert embedding(tokens).shape == (None, None, D)
    model = keras.Model(tokens, embedding(tokens))
    np.testing.assert_allclose(model(TOKENS), embedding(TOKENS), rtol=1e-12)


@pytest.mark.parametrize("cutoffs", [(), CUTOFFS], ids=str)
def test_config_round_trip(cutoffs):
    embedding = AdaptiveEmbedding(
        V,
        D,
        cutoffs=cutoffs,
        div_value=3,
        embedding_size=23,
        initializer_stddev=0.3,
        projection_initializer_stddev=0.7,
        dtype="mixed_bfloat16",
        name="a",
    )
    config = embedding.get_config()
    again = AdaptiveEmbedding.from_config(config)
    assert again.get_config() == config
    assert again.dtype_policy == embedding.dtype_policy
    assert again.clusters == embedding.clusters
    registered = keras.saving.serialize_keras_object(embedding)
    assert registered["registered_name"] == "official_lrm>AdaptiveEmbedding"
    assert keras.saving.deserialize_keras_object(registered).get_config() == (
        config
    )
