"""product_less is a product and a difference, rounded no more often."""

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.kernels import product_less


def random_tensors(dtype):
    rng = np.random.default_rng(5)
    shapes = (2, 3, 7, 5), (2, 3, 11, 5), (2, 3, 7, 1)
    return [tf.cast(rng.normal(size=shape), dtype) for shape in shapes]


def exact(rows, columns, subtrahend):
    rows, columns, subtrahend = (
        np.array(tf.cast(x, "float64")) for x in (rows, columns, subtrahend)
    )
    return rows @ np.swapaxes(columns, -1, -2) - subtrahend


@pytest.mark.parametrize("is_for_tpus", [False, True])
@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float64", 1e-14), ("float32", 1e-5), ("bfloat16", 0.05)],
)
def test_it_is_the_difference(request, dtype, tolerance, in_graph, is_for_tpus):
    tensors = random_tensors(dtype)
    if is_for_tpus:
        request.getfixturevalue("for_tpus")
    function = tf.function(product_less) if in_graph else product_less
    result = function(*tensors)
    assert result.dtype == dtype
    result = np.array(tf.cast(result, "float64"))
    np.testing.assert_allclose(result, exact(*tensors), atol=tolerance)


def test_bfloat16_is_rounded_once(request):
    # Given products that are large beside what is left of them,
    rows, columns, _ = random_tensors("bfloat16")
    product = tf.matmul(rows, columns, transpose_b=True)
    tensors = rows, columns, product[..., :1]

    def error():
        result = np.array(tf.cast(product_less(*tensors), "float64"))
        return np.mean(np.abs(result - exact(*tensors)))

    # then it is nearer than a product that is rounded first.
    once = error()
    request.getfixturevalue("for_tpus")
    assert once < 0.8 * error()
