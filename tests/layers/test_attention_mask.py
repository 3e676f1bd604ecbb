"""Tests of which keys a query sees."""

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.layers import attention_mask


def drawn(mask):
    """A mask as text: rows are queries, `x` is a visible key."""
    return [
        ["".join(".x"[key] for key in query) for query in lane]
        for lane in np.array(mask).astype(int)
    ]


def position(*values):
    return np.array(values, "int32")


def test_without_memory_it_is_causal():
    assert drawn(attention_mask(position(0, 7), 0, 3)) == [
        ["x..", "xx.", "xxx"]
    ]


def test_a_full_memory_is_seen_by_all_queries():
    mask = attention_mask(position(2, 7), 2, 3)
    assert drawn(mask) == [["xxx..", "xxxx.", "xxxxx"]] * 2


def test_slots_that_were_never_written_are_masked():
    # Given lanes that have seen 0, 1 and 2 tokens.
    mask = attention_mask(position(0, 1, 2), 2, 3)
    assert drawn(mask) == [
        ["..x..", "..xx.", "..xxx"],
        [".xx..", ".xxx.", ".xxxx"],
        ["xxx..", "xxxx.", "xxxxx"],
    ]


def test_attend_to_empty_sees_them():
    mask = attention_mask(position(0, 1, 2), 2, 3, attend_to_empty=True)
    assert drawn(mask) == [["xxx..", "xxxx.", "xxxxx"]]


def test_same_length_sees_as_many_keys_as_the_span():
    mask = attention_mask(position(7, 7), 2, 3, same_length=True)
    assert drawn(mask) == [[".xx..", "..xx.", "...xx"]] * 2


def test_same_length_with_a_span_beyond_the_segment():
    mask = attention_mask(position(7), 5, 3, same_length=True)
    assert drawn(mask) == [[".xxxxx..", "..xxxxx.", "...xxxxx"]]
    assert np.sum(mask, axis=-1).tolist() == [[5, 5, 5]]


def test_same_length_and_an_unfilled_memory():
    mask = attention_mask(position(0, 1), 2, 3, same_length=True)
    assert drawn(mask) == [
        ["..x..", "..xx.", "...xx"],
        [".xx..", "..xx.", "...xx"],
    ]


def test_same_length_attending_to_empty():
    mask = attention_mask(
        position(0, 1), 2, 3, same_length=True, attend_to_empty=True
    )
    assert drawn(mask) == [[".xx..", "..xx.", "...xx"]]


@pytest.mark.parametrize("span", [0, 1])
def test_same_length_sees_at_least_the_query_itself(span):
    mask = attention_mask(position(0, 7), span, 3, same_length=True)
    own = ["." * (span + i) + "x" + "." * (2 - i) for i in range(3)]
    assert drawn(mask)[0] == own


@pytest.mark.parametrize("same_length", [False, True])
@pytest.mark.parametrize("attend_to_empty", [False, True])
def test_it_is_the_rule_of_the_docstring(same_length, attend_to_empty):
    positions, span, num_queries = position(0, 3, 5, 97), 5, 7
    mask = attention_mask(
        positions, span, num_queries, same_length, attend_to_empty
    )
    mask = np.broadcast_to(mask, (4, 7, 12))
    for lane, i, j in np.ndindex(mask.shape):
        distance = i + span - j
        written = j >= span - min(positions[lane], span)
        assert mask[lane, i, j] == (
            distance >= 0
            and (not same_length or distance < span)
            and (attend_to_empty or written)
        )


@pytest.mark.parametrize("span", [0, 5])
def test_batch_and_length_may_be_tensors(span):
    @tf.function(
        input_signature=[
            tf.TensorSpec([None], "int32"),
            tf.TensorSpec([], "int32"),
        ]
    )
    def mask(positions, num_queries):
        return attention_mask(positions, span, num_queries, same_length=True)

    positions = position(0, 3)
    expected = attention_mask(positions, span, 7, same_length=True)
    assert drawn(mask(positions, 7)) == drawn(expected)
