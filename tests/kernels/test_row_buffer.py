"""Tests of rows written in place, and of their portable twin."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import official_lrm as lrm
from official_lrm.kernels import empty_rows, set_rows, take_rows
from official_lrm.kernels.row_buffer import set_rows_portable

DTYPES = ("float32", "float64", "bfloat16", "float16", "int8", "int32")
ROWS = np.array([11, 0, 5, 12], "int32")  # S = 4 of R = 13.


def some_rows(*shape, dtype="float32", start=0):
    """Small distinct integers, which every dtype holds."""
    values = np.arange(start, start + np.prod(shape)) % 113
    return tf.cast(values.reshape(shape), dtype)


class TestSetRows:
    @pytest.fixture(params=[set_rows, set_rows_portable])
    def function(self, request):
        return request.param

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("row", [(), (3,), (3, 2)], ids=str)
    def test_the_rows_are_set_and_no_others(self, function, dtype, row):
        buffer = some_rows(13, *row, dtype=dtype)
        values = some_rows(4, *row, dtype=dtype, start=50)
        expected = np.array(buffer)
        expected[ROWS] = values
        result = function(buffer, ROWS, values)
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, expected)

    def test_in_a_graph_of_unknown_sizes(self, function):
        @tf.function(
            input_signature=[
                tf.TensorSpec([None, 3]),
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([None, 3]),
            ]
        )
        def call(buffer, rows, values):
            return function(tf.concat([buffer, buffer], axis=0), rows, values)

        buffer, values = some_rows(13, 3), some_rows(4, 3, start=50)
        expected = np.concatenate([buffer, buffer])
        expected[ROWS + 13] = values
        np.testing.assert_array_equal(call(buffer, ROWS + 13, values), expected)
        # The caller's own is as it was.
        np.testing.assert_array_equal(buffer, some_rows(13, 3))

    def test_no_rows(self, function):
        nothing = np.zeros([0], "int32")
        result = function(some_rows(13, 3), nothing, some_rows(0, 3))
        np.testing.assert_array_equal(result, some_rows(13, 3))
        result = function(some_rows(0, 3), nothing, some_rows(0, 3))
        assert result.shape == (0, 3)

    def test_tensorflow_writes_in_place(self):
        # What it is for; and why nobody else may hold the buffer.
        buffer = some_rows(13, 3)
        result = set_rows(buffer, ROWS, some_rows(4, 3, start=50))
        np.testing.assert_array_equal(buffer, result)

    def test_the_portable_one_does_not(self):
        buffer = some_rows(13, 3)
        set_rows_portable(buffer, ROWS, some_rows(4, 3, start=50))
        np.testing.assert_array_equal(buffer, some_rows(13, 3))


class TestEmptyRows:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_they_are_zeros(self, dtype):
        for shape in ((5, 3), (5, tf.constant(3)), (tf.constant(2), 3, 7)):
            rows = empty_rows(shape, dtype)
            assert rows.dtype == dtype
            assert rows.shape == tuple(int(size) for size in shape)
            assert not np.any(rows)

    @staticmethod
    def add_to(ring, row, number=1):
        """Adds to a row of a ring, in place."""
        return set_rows(ring, [row], ring[row][None] + number)

    @pytest.mark.parametrize("exported", [False, True])
    def test_a_graph_of_constants_gives_the_same_again(
        self, exported, tmp_path
    ):
        # Given a ring that is begun with nothing but constants,
        @tf.function(input_signature=[tf.TensorSpec([])])
        def call(number):
            ring = tf.concat(
                [some_rows(5, 3), empty_rows([2, 3], "float32")], axis=0
            )
            ring = self.add_to(ring, 1, number)
            return self.add_to(ring, 6, number)

        if exported:
            module = tf.Module()
            module.call = call
            tf.saved_model.save(module, str(tmp_path))
            call = tf.saved_model.load(str(tmp_path)).call
        # when it is written again and again,
        expected = np.concatenate([some_rows(5, 3), np.zeros([2, 3])])
        expected[[1, 6]] += 17
        for _ in range(3):
            # then each call began with the same.
            np.testing.assert_array_equal(call(17), expected)

    def test_rings_of_the_same_numbers_are_not_one(self):
        # A graph's optimizer merges operations that give the same.
        @tf.function
        def call(slots):
            rings = [
                tf.concat([slots, empty_rows([2, 3], "float32")], axis=0)
                for _ in range(3)
            ]
            return [self.add_to(ring, i) for i, ring in enumerate(rings)]

        slots = some_rows(5, 3)
        for _ in range(2):
            for i, ring in enumerate(call(slots)):
                expected = np.concatenate([slots, np.zeros([2, 3])])
                expected[i] += 1
                np.testing.assert_array_equal(ring, expected)
        np.testing.assert_array_equal(slots, some_rows(5, 3))

    def test_a_loop_may_write_as_often_as_it_likes(self):
        @tf.function
        def call(slots):
            ring = tf.concat([slots, empty_rows([2, 3], "float32")], axis=0)
            return tf.while_loop(
                lambda step, _: step < 23,
                lambda step, ring: (step + 1, self.add_to(ring, step % 7)),
                (tf.constant(0), ring),
            )[1]

        expected = np.concatenate([some_rows(5, 3), np.zeros([2, 3])])
        expected += np.array([4, 4, 3, 3, 3, 3, 3])[:, None]
        for _ in range(2):
            np.testing.assert_array_equal(call(some_rows(5, 3)), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", [(), (3,), (3, 2)], ids=str)
@pytest.mark.parametrize("shape", [(), (4,), (2, 5), (2, 0)], ids=str)
def test_take_rows(dtype, row, shape):
    values = some_rows(13, *row, dtype=dtype)
    rng = np.random.default_rng(3)
    indices = rng.integers(0, 13, shape, dtype="int32")
    taken = take_rows(values, indices)
    assert taken.dtype == dtype
    np.testing.assert_array_equal(taken.numpy(), values.numpy()[indices])


JAX_WORKER = """
import keras
import numpy as np
from official_lrm.kernels import empty_rows, set_rows, take_rows

assert keras.backend.backend() == "jax"
import jax

buffer = np.arange(39, dtype="float32").reshape(13, 3)
values = -np.arange(1, 13, dtype="float32").reshape(4, 3)
rows = np.array([11, 0, 5, 12], "int32")
expected = buffer.copy()
expected[rows] = values
for call in (set_rows, jax.jit(set_rows)):
    tensor = keras.ops.convert_to_tensor(buffer)
    np.testing.assert_array_equal(call(tensor, rows, values), expected)
    np.testing.assert_array_equal(tensor, buffer)
np.testing.assert_array_equal(
    take_rows(buffer, np.array([[5, 0], [12, 5]])), buffer[[[5, 0], [12, 5]]]
)
empty = empty_rows((2, 3), "bfloat16")
assert (empty.shape, empty.dtype) == ((2, 3), "bfloat16")
assert not np.any(empty)
print("all held")
"""


def test_on_jax():
    pytest.importorskip("jax")
    assert keras.backend.backend() == "tensorflow"
    root = str(pathlib.Path(lrm.__file__).parents[1])
    run = subprocess.run(
        [sys.executable, "-c", JAX_WORKER],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": root,
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
        },
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("all held\n")
