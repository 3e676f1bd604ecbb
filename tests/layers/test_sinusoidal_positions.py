"""Tests of the table of relative positions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from official_lrm.layers import sinusoidal_positions


def reference(length, hidden_size):
    """The table in float64, element by element."""
    table = np.zeros((length, hidden_size))
    half = hidden_size // 2
    for row in range(length):
        distance = length - 1 - row
        for i in range(half):
            angle = distance / 10000 ** (2 * i / hidden_size)
            table[row, i] = np.sin(angle)
            table[row, half + i] = np.cos(angle)
    return table


def test_by_hand():
    # D = 4: frequencies 10000 ** 0 = 1 and 10000 ** (-2 / 4) = 0.01.
    expected = [
        [0.9092974, 0.0199987, -0.4161468, 0.9998000],  # distance 2
        [0.8414710, 0.0099998, 0.5403023, 0.9999500],  # distance 1
        [0.0, 0.0, 1.0, 1.0],  # distance 0
    ]
    table = sinusoidal_positions(3, 4)
    assert table.dtype == "float32"
    np.testing.assert_allclose(table, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_is_the_formula_at_long_distances(dtype):
    table = sinusoidal_positions(2304, 14, dtype=dtype)
    # float32 rounds an angle of 2303 by up to 1.2e-4.
    tolerance = {"float32": 3e-4, "float64": 1e-11}[dtype]
    assert table.dtype == dtype
    np.testing.assert_allclose(table, reference(2304, 14), atol=tolerance)


def test_a_shorter_table_is_the_tail_of_a_longer_one():
    longer = np.array(sinusoidal_positions(13, 6))
    for length in (1, 5, 11):
        shorter = np.array(sinusoidal_positions(length, 6))
        assert np.array_equal(shorter, longer[-length:])
        # And not its head.
        assert not np.array_equal(shorter, longer[:length])


def test_distances_beyond_the_clamp_count_as_it():
    clamped = np.array(sinusoidal_positions(7, 6, clamp_length=3))
    free = np.array(sinusoidal_positions(7, 6))
    # Rows are the distances 6, 5, 4, 3, 2, 1, 0.
    assert np.array_equal(clamped, free[[3, 3, 3, 3, 4, 5, 6]])
    assert np.array_equal(sinusoidal_positions(7, 6, clamp_length=6), free)


def test_neighbouring_distances_stay_apart_in_bfloat16():
    table = keras.ops.cast(sinusoidal_positions(6000, 64), "bfloat16")
    rows = np.array(table).astype("float32")
    neighbours_differ = np.any(rows[1:] != rows[:-1], axis=1)
    assert np.all(neighbours_differ)
    # Distances in bfloat16, with 8 bits, would not: 2303 and 2302 are one.
    halves = np.array(keras.ops.cast(np.array([2303, 2302]), "bfloat16"))
    assert halves[0] == halves[1]
    # The table is as near to the formula as bfloat16 can be.
    np.testing.assert_allclose(rows, reference(6000, 64), atol=2**-8)


def test_the_length_may_be_a_tensor():
    @tf.function(input_signature=[tf.TensorSpec([], "int32")])
    def table(length):
        return sinusoidal_positions(length, 6, clamp_length=3)

    expected = sinusoidal_positions(7, 6, clamp_length=3)
    assert np.allclose(table(7), expected, atol=1e-6)
