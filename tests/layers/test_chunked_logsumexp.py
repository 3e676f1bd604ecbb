"""Tests of the log-sum-exp in chunks, and of its gradient."""

import functools
import gc

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.layers import chunked_logsumexp

# R rows, n logits, E wide.
R, N, E = 23, 7, 3

# Chunks of 8 rows, and all rows in one.
CHUNKS = {"8": 8 * N + N - 1, "all": 2**24}

RANGES = [
    (0, None),
    (R - 1, 1),
    (5, 0),
    (R, 0),
    (0, 8),
    (0, 11),
    (5, 16),
    (15, 8),
]


@pytest.fixture(params=CHUNKS.values(), ids=list(CHUNKS))
def chunks(request, max_elements):
    max_elements(request.param)


def make_arrays(num_rows=R, dtype="float64", scale=1.0):
    rng = np.random.default_rng(2)
    return [
        (rng.normal(size=shape) * scale).astype(dtype)
        for shape in ((num_rows, E), (N, E), (N,))
    ]


def logsumexp(inputs, kernel, bias, start=0, count=None):
    """Row by row, in the loops' plainest form."""
    result = np.zeros(len(inputs))
    stop = len(inputs) if count is None else start + count
    for row in range(start, stop):
        logits = [inputs[row] @ kernel[j] + bias[j] for j in range(len(kernel))]
        result[row] = np.log(sum(np.exp(logit) for logit in logits))
    return result


def dense(inputs, kernel, bias, start=0, count=None):
    result = tf.reduce_logsumexp(
        tf.matmul(inputs, kernel, transpose_b=True) + bias, axis=-1
    )
    rows = np.arange(inputs.shape[0])
    stop = len(rows) if count is None else start + count
    return tf.where((rows >= start) & (rows < stop), result, 0)


def value_and_gradients(function, arrays, upstream):
    arrays = [tf.convert_to_tensor(array) for array in arrays]
    with tf.GradientTape() as tape:
        tape.watch(arrays)
        result = function(*arrays)
        loss = tf.reduce_sum(result * upstream)
    return [result, *tape.gradient(loss, arrays)]


@pytest.mark.usefixtures("chunks")
class TestRanges:
    @pytest.mark.parametrize(("start", "count"), RANGES)
    def test_values(self, start, count):
        arrays = make_arrays()
        result = chunked_logsumexp(*arrays, start=start, count=count)
        assert result.shape == (R,) and result.dtype == "float64"
        expected = logsumexp(*arrays, start, count)
        np.testing.assert_allclose(result, expected, atol=1e-12)

    @pytest.mark.parametrize(("start", "count"), RANGES)
    def test_gradients(self, start, count):
        arrays = make_arrays()
        upstream = np.random.default_rng(5).normal(size=R)
        ours, expected = (
            value_and_gradients(
                functools.partial(function, start=start, count=count),
                arrays,
                upstream,
            )
            for function in (chunked_logsumexp, dense)
        )
        for value, other in zip(ours, expected, strict=True):
            np.testing.assert_allclose(value, other, atol=1e-12)

    @pytest.mark.parametrize("num_rows", [1, 8, 9])
    def test_any_number_of_rows(self, num_rows):
        arrays = make_arrays(num_rows)
        upstream = np.linspace(1, 2, num_rows)
        ours, expected = (
            value_and_gradients(function, arrays, upstream)
            for function in (chunked_logsumexp, dense)
        )
        for value, other in zip(ours, expected, strict=True):
            np.testing.assert_allclose(value, other, atol=1e-12)

    def test_no_rows(self):
        value, *gradients = value_and_gradients(
            chunked_logsumexp, make_arrays(0), np.zeros(0)
        )
        assert value.shape == (0,)
        assert [x.shape for x in gradients] == [(0, E), (N, E), (N,)]

    @pytest.mark.parametrize("jit_compile", [False, True])
    def test_a_range_of_tensors_and_unknown_rows(self, jit_compile):
        @tf.function(
            jit_compile=jit_compile,
            input_signature=[
                tf.TensorSpec([None, E], "float64"),
                tf.TensorSpec([N, E], "float64"),
                tf.TensorSpec([N], "float64"),
                tf.TensorSpec([], "int32"),
                tf.TensorSpec([], "int32"),
            ],
        )
        def compiled(inputs, kernel, bias, start, count):
            return value_and_gradients(
                functools.partial(chunked_logsumexp, start=start, count=count),
                [inputs, kernel, bias],
                tf.linspace(
                    tf.constant(1.0, "float64"), 2, tf.shape(inputs)[0]
                ),
            )

        cases = (
            [(R, 5, 16), (R, 0, 0)]
            if jit_compile
            else [(R, 5, 16), (R, 0, 0), (R, 0, R), (1, 0, 1), (9, 8, 1)]
        )
        for num_rows, start, count in cases:
            arrays = make_arrays(num_rows)
            expected = value_and_gradients(
                functools.partial(dense, start=start, count=count),
                arrays,
                np.linspace(1, 2, num_rows),
            )
            results = compiled(*arrays, start, count)
            for value, other in zip(results, expected, strict=True):
                np.testing.assert_allclose(value, other, atol=1e-12)


@pytest.mark.parametrize("rows_of_chunk", [8, R], ids=str)
class TestNumerics:
    @pytest.fixture(autouse=True)
    def chunk(self, max_elements, rows_of_chunk):
        max_elements(rows_of_chunk * N)

    @pytest.mark.parametrize("offset", [-300, 300])
    def test_large_logits(self, offset):
        # Given float32 logits of a few hundreds, large in the products or in
        # the bias, whose exponentials are infinite or 0,
        inputs, kernel, bias = make_arrays(dtype="float32")
        for arrays in (
            [inputs, kernel, bias + np.float32(offset)],
            [inputs * 50, kernel * 4, bias],
        ):
            upstream = np.ones(R, "float32")
            ours, expected = (
                value_and_gradients(function, arrays, upstream)
                for function in (chunked_logsumexp, dense)
            )
            # then nothing overflows, in padding rows neither.
            for value, other in zip(ours, expected, strict=True):
                assert value.dtype == "float32"
                np.testing.assert_allclose(value, other, rtol=1e-3, atol=1e-3)

    def test_rows_outside_the_range_may_hold_anything(self):
        arrays = make_arrays()
        upstream = np.ones(R)
        expected = value_and_gradients(
            functools.partial(dense, start=5, count=11), arrays, upstream
        )
        # 1e200, not infinity, whose product with 0 is not a number.
        arrays[0][:5] = arrays[0][16:] = 1e200
        results = value_and_gradients(
            functools.partial(chunked_logsumexp, start=5, count=11),
            arrays,
            upstream,
        )
        for value, other in zip(results, expected, strict=True):
            np.testing.assert_allclose(value, other, atol=1e-12)


def test_no_more_logits_than_allowed_at_a_time(max_elements):
    # Given chunks of 8 rows, of sizes that no other tensor has,
    max_elements(8 * 97 + 96)
    arrays = [tf.ones([83, 5]), tf.ones([97, 5]), tf.ones([97])]
    graph = tf.function(
        lambda *x: value_and_gradients(chunked_logsumexp, x, tf.ones(83))
    ).get_concrete_function(*arrays)
    definition = graph.graph.as_graph_def(add_shapes=True)
    nodes = [
        *definition.node,
        *(n for f in definition.library.function for n in f.node_def),
    ]
    sizes = {
        np.prod([dim.size for dim in shape.dim])
        for node in nodes
        for shape in node.attr["_output_shapes"].list.shape
    }
    # then these are the largest tensors of the graph and of its loops.
    assert max(sizes) == 8 * 97


def test_an_eager_tape_holds_no_logits(max_elements):
    max_elements(8 * 89)
    arrays = [tf.ones([83, 5]), tf.ones([89, 5]), tf.ones([89])]
    with tf.GradientTape() as tape:
        tape.watch(arrays)
        result = chunked_logsumexp(*arrays)
        held = [
            x
            for x in gc.get_objects()
            if isinstance(x, tf.Tensor) and x.shape == (8, 89)
        ]
    assert not held
    assert tape.gradient(result, arrays[2]) is not None
