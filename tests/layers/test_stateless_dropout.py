"""Tests of dropout as a function of its seed."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from official_lrm.layers import stateless_dropout

SEED = np.array([17, 5], "int32")


def mask(seed=SEED, site=3, shape=(101,), rate=0.5):
    ones = np.ones(shape, "float32")
    kept = np.array(stateless_dropout(ones, rate, np.array(seed), site)) != 0
    return kept.tobytes()


def test_the_same_seed_draws_the_same_mask():
    first = mask()
    keras.random.uniform([3])  # Whatever else is drawn in between.
    mask(site=7)
    assert mask() == first


def test_another_seed_or_site_draws_another_mask():
    masks = [
        mask(),
        mask(seed=[18, 5]),
        mask(seed=[17, 6]),
        mask(seed=[5, 17]),
        mask(site=4),
        mask(site=0),
    ]
    assert len(set(masks)) == len(masks)


def test_sites_of_consecutive_steps_never_meet():
    # Given runs of neighbouring seeds and steps that count up, and as many
    # sites as a model has,
    cases = itertools.product((0, 1, 2), range(7), range(31))
    masks = [mask([run, step], site) for run, step, site in cases]
    # then no two masks of 101 elements are the same.
    assert len(set(masks)) == 3 * 7 * 31


def test_elements_are_dropped_or_scaled_up():
    inputs = np.linspace(1, 2, 10_007, dtype="float32")
    outputs = np.array(stateless_dropout(inputs, 0.2, SEED, 3))
    kept = outputs != 0
    np.testing.assert_allclose(outputs[kept], inputs[kept] / 0.8, rtol=1e-6)
    # Four standard deviations of sqrt(0.2 * 0.8 / 10007) = 0.004.
    assert abs(np.mean(~kept) - 0.2) < 0.016


def test_different_elements_of_one_tensor_are_independent():
    # Neither rows nor columns share their mask.
    kept = stateless_dropout(np.ones((53, 59), "float32"), 0.5, SEED, 3)
    kept = np.array(kept) != 0
    assert len(np.unique(kept, axis=0)) == 53
    assert len(np.unique(kept, axis=1).T) == 59


def test_rate_zero_does_nothing_and_needs_no_seed():
    inputs = np.ones([3], "float32")
    assert stateless_dropout(inputs, 0.0, None, 3) is inputs


def test_rate_one_drops_everything():
    outputs = stateless_dropout(np.ones([101], "float32"), 1.0, SEED, 3)
    assert np.array(outputs).tolist() == [0] * 101


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_the_dtype_stays(dtype):
    inputs = keras.ops.ones([101], dtype)
    outputs = stateless_dropout(inputs, 0.5, SEED, 3)
    assert outputs.dtype == inputs.dtype
    assert set(np.array(outputs).astype("float32").tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("dtype", ["int64", "uint32"])
def test_seeds_of_any_integer_type_are_the_same(dtype):
    assert mask(SEED.astype(dtype)) == mask()


def test_in_a_graph_as_eagerly():
    @tf.function(input_signature=[tf.TensorSpec([2], "int32")])
    def drop(seed):
        return stateless_dropout(tf.ones([101]), 0.5, seed, 3)

    assert (np.array(drop(SEED)) != 0).tobytes() == mask()
