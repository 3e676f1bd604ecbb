"""computed_again changes no value, and XLA computes twice where it is used."""

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.kernels import computed_again


def test_the_own_runtime_gets_the_tensor_itself():
    tensor = tf.ones([3])
    assert computed_again(tensor, later=tf.ones([2])) is tensor


def test_a_copy_is_made_again_there_and_waits():
    # Given a copy that is made for a result and, cheap, for one that is late,
    @tf.function
    def both(x, y):
        early = tf.concat([x, y], 0)
        later = tf.linalg.matmul(early, early, name="later")
        again = computed_again(x, later=later, cheap=True)
        return early, tf.concat([again, y], 0)

    arguments = tf.ones([2, 4]), tf.zeros([2, 4])
    graph = both.get_concrete_function(*arguments).graph
    # then the second one has an operation of its own, behind the late one,
    *_, second = (op for op in graph.get_operations() if op.type == "ConcatV2")
    (waits,) = second.inputs[0].op.control_inputs
    assert waits.name == "later"
    # of the same values.
    first, again = both(*arguments)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("later", [0.0, -3.5, 1e30, np.inf])
def test_values_and_dtype_stay(for_tpus, dtype, later):
    values = tf.cast([1.5, -2.0, 1e-20, 3e20], dtype)
    again = computed_again(values, later=tf.fill([2, 3], later))
    assert again is not values
    assert again.dtype == dtype
    np.testing.assert_array_equal(again, values)


@pytest.mark.parametrize("is_used", [False, True])
def test_xla_computes_twice(for_tpus, is_used):
    # Given a sum that is taken again for the second result,
    @tf.function(jit_compile=True)
    def both(x, later):
        first = tf.cumsum(tf.sort(x))
        second = computed_again(x, later=later) if is_used else x
        return first, tf.cumsum(tf.sort(second)) * later[0]

    # when XLA has compiled it,
    arguments = tf.random.stateless_normal([64], [3, 5]), tf.ones([4])
    program = both.experimental_get_compiler_ir(*arguments)("optimized_hlo")
    # then it is sorted twice, and once without.
    assert program.count(" sort(") == (2 if is_used else 1)
    first, second = both(*arguments)
    np.testing.assert_array_equal(first, second)
