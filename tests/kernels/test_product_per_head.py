"""product_per_head is an einsum, and transposes no results."""

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.kernels import product_per_head

D, N, H = 5, 3, 2


def random_tensors(*shapes):
    rng = np.random.default_rng(5)
    return [tf.constant(rng.normal(size=shape)) for shape in shapes]


@pytest.mark.parametrize("lanes", [(7,), (2, 7), (1, 1)])
@pytest.mark.parametrize("is_for_tpus", [False, True])
@pytest.mark.parametrize("is_known", [False, True])
def test_it_is_the_einsum(request, lanes, is_for_tpus, is_known):
    hidden, kernel = random_tensors((*lanes, D), (N, H, D))
    if is_for_tpus:
        request.getfixturevalue("for_tpus")
    shape = hidden.shape if is_known else (*(None for _ in lanes), D)
    product = tf.function(
        product_per_head,
        input_signature=[
            tf.TensorSpec(shape, hidden.dtype),
            tf.TensorSpec(kernel.shape, kernel.dtype),
        ],
    )
    heads = product(hidden, kernel)
    assert heads.shape == (N, *lanes, H)
    expected = np.einsum("...d,nhd->n...h", hidden, kernel)
    np.testing.assert_allclose(heads, expected, atol=1e-12)


def transpositions(*tensors):
    graph = tf.function(product_per_head).get_concrete_function(*tensors).graph
    return [
        operation.inputs[0].shape
        for operation in graph.get_operations()
        if operation.type == "Transpose"
    ]


def test_nothing_but_the_kernel_is_transposed(request):
    # Grappler has the product read it the other way round.
    tensors = random_tensors((2, 7, D), (N, H, D))
    assert transpositions(*tensors) == [(N, H, D)]
    request.getfixturevalue("for_tpus")
    assert transpositions(*tensors) == [(2, 7, N, H)]
