"""Tests of the gradients of the softmax in clusters."""

import numpy as np
import pytest
import tensorflow as tf

# Clusters of 7, 13 and 17 tokens.
V, D = 37, 19
CUTOFFS = (7, 20)
ADAPTIVE = {"cutoffs": CUTOFFS, "div_value": 2}

OPTIONS = [
    ADAPTIVE,
    {"cutoffs": CUTOFFS},
    {"cutoffs": CUTOFFS, "embedding_size": 23},
    {"cutoffs": CUTOFFS, "embedding_size": 23, "share_projections": False},
    {**ADAPTIVE, "tie_embeddings": False},
    {
        "cutoffs": CUTOFFS,
        "div_value": 4,
        "embedding_size": 23,
        "tie_embeddings": False,
        "share_projections": False,
    },
    {},
    {"embedding_size": 23, "tie_embeddings": False},
]

TARGETS = {
    "all clusters": [[0, 6, 7, 19, 20], [36, 3, 11, 29, 7]],
    "first only": [[0, 6, 3, 3, 5], [1, 2, 0, 4, 6]],
    "last only": [[20, 36, 29, 29, 21], [30, 35, 20, 22, 36]],
    "middle empty": [[36, 0, 1, 20, 6], [2, 30, 21, 5, 29]],
}
TARGETS = {name: np.array(value, "int32") for name, value in TARGETS.items()}


def sparse(softmax, hidden, embedding, targets):
    return softmax(hidden, embedding=embedding, targets=targets)


def dense(softmax, hidden, embedding, targets):
    log_probs = tf.nn.log_softmax(softmax(hidden, embedding=embedding))
    return tf.gather(log_probs, targets, axis=-1, batch_dims=2)


def gradients(function, embedding, softmax, hidden, targets, upstream):
    """Log-probabilities and, by name, the gradients of their weighted sum."""
    weights = {
        **{f"embedding/{x.name}": x.value for x in embedding.weights},
        **{f"softmax/{x.name}": x.value for x in softmax.weights},
    }
    with tf.GradientTape() as tape:
        tape.watch(hidden)
        log_probs = function(softmax, hidden, embedding, targets)
        loss = tf.reduce_sum(log_probs * upstream)
    result = tape.gradient(
        loss,
        {"hidden": hidden, **weights},
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    return {"log_probs": log_probs, **result}


def assert_same(ours, expected, unused=()):
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(
            tf.convert_to_tensor(ours[name]),
            value,
            atol=1e-11,
            err_msg=name,
        )
        # A gradient of nothing would show nothing.
        assert np.any(np.array(value)) != name.startswith(tuple(unused)), name


def unused_by(options):
    """Names of weights that the softmax has nothing to do with."""
    unused = []
    if not options.get("tie_embeddings", True):
        unused.append("embedding/table")
    if not options.get("share_projections", True) or "cutoffs" not in options:
        unused.append("embedding/projection")
    elif options.get("div_value", 1) > 1:
        unused.append("embedding/projection_0")
    return unused or ["none"]


def upstream_of(shape):
    return np.random.default_rng(11).normal(size=shape)


@pytest.mark.parametrize("chunk", [1, 2**24], ids=["many", "one"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_they_are_those_of_the_dense_softmax(
    make_layers, make_hidden, max_elements, options, chunk
):
    max_elements(chunk)
    arguments = (
        *make_layers(**options),
        tf.constant(make_hidden(2, 5)),
        TARGETS["all clusters"],
        upstream_of((2, 5)),
    )
    ours, expected = (
        gradients(function, *arguments) for function in (sparse, dense)
    )
    assert_same(ours, expected, unused_by(options))


@pytest.mark.parametrize("targets", TARGETS.values(), ids=list(TARGETS))
def test_of_targets_of_some_clusters_only(
    make_layers, make_hidden, max_elements, targets
):
    max_elements(1)
    arguments = (
        *make_layers(**ADAPTIVE),
        tf.constant(make_hidden(2, 5)),
        targets,
        upstream_of((2, 5)),
    )
    ours, expected = (
        gradients(function, *arguments) for function in (sparse, dense)
    )
    for name, value in expected.items():
        np.testing.assert_allclose(
            tf.convert_to_tensor(ours[name]), value, atol=1e-11, err_msg=name
        )


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_compiled_with_unknown_lanes_and_length(
    make_layers, make_hidden, max_elements, jit_compile
):
    max_elements(1)
    embedding, softmax = make_layers(**ADAPTIVE)

    @tf.function(
        jit_compile=jit_compile,
        input_signature=[
            tf.TensorSpec([None, None, D], "float64"),
            tf.TensorSpec([None, None], "int32"),
            tf.TensorSpec([None, None], "float64"),
        ],
    )
    def compiled(hidden, targets, upstream):
        return {
            name: tf.convert_to_tensor(value)
            for name, value in gradients(
                sparse, embedding, softmax, hidden, targets, upstream
            ).items()
        }

    for shape in [(2, 23)] if jit_compile else [(2, 23), (1, 1), (3, 5)]:
        arguments = (
            tf.constant(make_hidden(*shape)),
            np.random.default_rng(7).integers(0, V, shape, "int32"),
            upstream_of(shape),
        )
        expected = gradients(dense, embedding, softmax, *arguments)
        ours = compiled(*arguments)
        for name, value in expected.items():
            np.testing.assert_allclose(
                ours[name], value, atol=1e-11, err_msg=name
            )


def test_they_are_the_differences_of_the_equations(
    make_layers, make_hidden, equations, max_elements
):
    # Given an own table and own projections, so that all weights differ,
    max_elements(1)
    embedding, softmax = make_layers(
        **ADAPTIVE, tie_embeddings=False, share_projections=False
    )
    hidden, targets = make_hidden(2, 5), TARGETS["all clusters"]
    upstream, rng = upstream_of((2, 5)), np.random.default_rng(13)
    ours = gradients(
        sparse, embedding, softmax, tf.constant(hidden), targets, upstream
    )
    weights = {
        **{f"softmax/{x.name}": x for x in softmax.weights},
        "hidden": hidden,
    }
    for name, weight in weights.items():
        # when one of them moves in a random direction,
        direction = rng.normal(size=weight.shape)
        values = []
        for step in (1e-5, -1e-5):
            of, state = equations(embedding, softmax), hidden
            if name == "hidden":
                state = hidden + step * direction
            else:
                attribute, _, index = name[8:].rpartition("_")
                if index.isdigit():
                    array = getattr(of.softmax, f"{attribute}s")[int(index)]
                else:
                    array = getattr(of.softmax, name[8:])
                array += step * direction
            values.append(np.sum(of.log_probs(state, targets) * upstream))
        # then the equations' values change as the gradient says.
        slope = np.sum(np.array(tf.convert_to_tensor(ours[name])) * direction)
        difference = (values[0] - values[1]) / 2e-5
        assert slope == pytest.approx(difference, rel=1e-6, abs=1e-6), name
        assert abs(slope) > 1e-3, name


def test_rows_of_clusters_without_targets_learn_nothing(
    make_layers, make_hidden
):
    # The head's cluster weights learn from every target, a tail only from its
    # own.
    embedding, softmax = make_layers(**ADAPTIVE)
    ours = gradients(
        sparse,
        embedding,
        softmax,
        tf.constant(make_hidden(2, 5)),
        TARGETS["first only"],
        upstream_of((2, 5)),
    )
    ours = {k: np.array(tf.convert_to_tensor(v)) for k, v in ours.items()}
    for name in ("embedding/table_1", "embedding/table_2"):
        assert not np.any(ours[name])
    assert not np.any(ours["softmax/bias"][7:])
    for name in ("embedding/table_0", "softmax/cluster_kernel"):
        assert np.all(np.any(ours[name], axis=-1))
