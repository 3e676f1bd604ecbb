"""A softmax of bfloat16 is taken for a wide one where it is one."""

import keras
import pytest
import tensorflow as tf

from official_lrm.kernels import softmax_precision
from official_lrm.kernels.softmax_precision import softmax_of_bfloat16_is_wide


def narrow(softmax):
    """One that rounds after each operation, as Eigen's does."""

    def round_each(scores):
        powers = tf.exp(scores - tf.reduce_max(scores, -1, keepdims=True))
        return powers / tf.reduce_sum(powers, -1, keepdims=True)

    return round_each


def wide(softmax):
    return lambda scores: tf.cast(
        softmax(tf.cast(scores, tf.float32)), scores.dtype
    )


@pytest.fixture
def not_tried_yet():
    softmax_precision._is_wide.cache_clear()
    yield
    softmax_precision._is_wide.cache_clear()


@pytest.mark.usefixtures("not_tried_yet")
@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize(
    ("version", "expected"), [(narrow, False), (wide, True)]
)
def test_it_is_found_out(monkeypatch, in_graph, version, expected):
    monkeypatch.setattr(tf.nn, "softmax", version(tf.nn.softmax))
    found = []

    def find():
        found.append(softmax_of_bfloat16_is_wide())

    (tf.function(find) if in_graph else find)()
    assert found == [expected]


@pytest.mark.usefixtures("not_tried_yet")
def test_nothing_is_tried_elsewhere(monkeypatch, request):
    monkeypatch.setattr(softmax_precision, "_is_wide", pytest.fail)
    with monkeypatch.context() as patch:
        patch.setattr(keras.backend, "backend", lambda: "jax")
        assert not softmax_of_bfloat16_is_wide()
    request.getfixturevalue("for_tpus")
    assert not softmax_of_bfloat16_is_wide()
