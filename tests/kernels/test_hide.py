"""hide gives the same softmax, added or selected."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from official_lrm.kernels import hide
from official_lrm.kernels.backends import compiled_for_tpus


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("in_graph", [False, True])
def test_both_ways_are_the_same_to_the_last_bit(request, dtype, in_graph):
    # Given scores of all sizes and a causal mask,
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(2, 5, 7)) * 10.0 ** rng.integers(-8, 8, (5, 7))
    scores = tf.constant(scores.astype(dtype))
    visible = np.tril(np.ones((5, 7), "bool"), k=2)

    def softmax():
        def hidden(scores):
            return ops.softmax(hide(scores, visible))

        return (tf.function(hidden) if in_graph else hidden)(scores)

    # when what is hidden is added, and selected,
    added = softmax()
    assert not compiled_for_tpus()
    request.getfixturevalue("for_tpus")
    assert compiled_for_tpus()
    selected = softmax()
    # then nothing is seen of it, and nothing else differs.
    assert added.dtype == dtype
    np.testing.assert_array_equal(added, selected)
    assert not np.any(np.array(added)[:, ~visible])
    np.testing.assert_allclose(np.sum(added, axis=-1), 1, rtol=1e-6)
