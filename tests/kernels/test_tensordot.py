"""tensordot is ops.tensordot, and copies nothing."""

import re

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from official_lrm.kernels import tensordot

# Axes that are summed over last or first, one or two of them.
CASES = [
    ((7, 11, 5), (3, 2, 5), ((2,), (2,))),
    ((2, 3, 5), (7, 11, 5), ((2,), (2,))),
    ((2, 3, 7, 11), (7, 11, 5), ((2, 3), (0, 1))),
    ((2, 3, 7, 11), (2, 3, 5), ((0, 1), (0, 1))),
    ((5, 2), (3, 7, 5), ((0,), (2,))),
]


def random_tensors(*shapes, dtype="float64"):
    rng = np.random.default_rng(5)
    return [tf.cast(rng.normal(size=shape), dtype) for shape in shapes]


@pytest.mark.parametrize(("first", "second", "axes"), CASES)
@pytest.mark.parametrize("is_for_tpus", [False, True])
def test_it_is_the_twin(request, first, second, axes, is_for_tpus):
    tensors = random_tensors(first, second)
    expected = ops.tensordot(*tensors, axes)
    if is_for_tpus:
        request.getfixturevalue("for_tpus")
    product = tensordot(*tensors, axes)
    assert product.shape == expected.shape
    np.testing.assert_allclose(product, expected, atol=1e-12)


@pytest.mark.parametrize(("first", "second", "axes"), CASES)
def test_with_sizes_that_are_not_known(first, second, axes):
    tensors = random_tensors(first, second)
    signature = [
        tf.TensorSpec([None] * len(tensor.shape), tensor.dtype)
        for tensor in tensors
    ]

    @tf.function(input_signature=signature)
    def product(first, second):
        return tensordot(first, second, axes)

    np.testing.assert_allclose(
        product(*tensors), ops.tensordot(*tensors, axes), atol=1e-12
    )


@pytest.mark.parametrize(("first", "second", "axes"), CASES)
def test_nothing_is_transposed(first, second, axes):
    @tf.function
    def product(first, second):
        return tensordot(first, second, axes)

    tensors = random_tensors(first, second, dtype="float32")
    graph = product.get_concrete_function(*tensors).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert "MatMul" in kinds
    assert "Transpose" not in kinds


@pytest.mark.parametrize(("first", "second", "axes"), CASES)
def test_xla_gets_the_axes_as_they_are(for_tpus, first, second, axes):
    @tf.function(jit_compile=True)
    def product(first, second):
        return tensordot(first, second, axes)

    tensors = random_tensors(first, second, dtype="float32")
    program = product.experimental_get_compiler_ir(*tensors)("hlo")
    (operands,) = re.findall(r" dot\((.*?)\),", program)
    assert re.findall(r"f32\[(.*?)\]", operands) == [
        ",".join(map(str, shape)) for shape in (first, second)
    ]


@pytest.mark.parametrize(
    "axes", [((1,), (2,)), ((1, 0), (0, 1)), ((0, 2), (0, 2))]
)
def test_axes_within_are_refused(axes):
    tensors = random_tensors((2, 3, 5), (2, 3, 5))
    with pytest.raises(ValueError, match="the first or the last of 3; got"):
        tensordot(*tensors, axes)
