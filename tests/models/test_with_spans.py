"""Tests of one set of weights under other memory spans."""

import numpy as np
import pytest

from official_lrm import MemorySpans
from official_lrm.memory import narrow_memories

UNEVEN = (5, 0, 11)


def same_variables(model, other):
    pairs = zip(model.variables, other.variables, strict=True)
    return all(first is second for first, second in pairs)


@pytest.fixture
def after_training_span(make_model, make_tokens):
    """A model and its memories after 13 tokens."""
    model = make_model(UNEVEN)
    return model, model(make_tokens(2, 13, seed=5))[1]


def test_the_weights_are_the_very_same(make_model, make_tokens):
    # Given a model and a wider one,
    model = make_model(UNEVEN, dropout=0.2)
    wide = model.with_spans(model.spans.with_long(23))
    assert wide.spans.lengths == (5, 0, 23)
    assert model.spans.lengths == (5, 0, 11)
    assert same_variables(model, wide)
    assert wide.count_params() == model.count_params()
    # when a weight of one changes, then the other's outputs do too.
    before, _ = wide(make_tokens(2, 7))
    model.backbone.content_bias.assign_add(np.ones((3, 5)))
    after, _ = wide(make_tokens(2, 7))
    assert np.max(np.abs(before - after)) > 1e-3


@pytest.mark.parametrize(
    "lengths", [(3, 0, 2), (0, 0, 0), (7, 1, 23), (0, 11, 5)], ids=str
)
def test_it_gives_what_a_fresh_model_with_these_weights_gives(
    make_model, make_tokens, run_segments, lengths
):
    model = make_model(UNEVEN)
    fresh = make_model(lengths, weights_seed=3)
    fresh.set_weights(model.get_weights())
    tokens = make_tokens(2, 21)
    shared, memories = run_segments(model.with_spans(lengths), tokens, [7] * 3)
    expected, final = run_segments(fresh, tokens, [7] * 3)
    np.testing.assert_allclose(shared, expected, atol=1e-6)
    assert memories.keys() == final.keys()
    # And not what the first model gives.
    assert not np.allclose(
        run_segments(model, tokens, [7] * 3)[0], expected, atol=1e-3
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("same_length", True), ("clamp_length", 3), ("attend_to_empty", True)],
)
def test_overrides(make_model, make_tokens, name, value):
    model, tokens = make_model(UNEVEN), make_tokens(2, 7)
    other = model.with_spans(UNEVEN, **{name: value})
    assert getattr(other, name) == value
    assert getattr(model, name) in (False, None)
    assert same_variables(model, other)
    expected = make_model(UNEVEN, **{name: value})(tokens)[0]
    np.testing.assert_allclose(other(tokens)[0], expected, atol=1e-6)
    assert np.max(np.abs(model(tokens)[0] - expected)) > 1e-3
    # What is not overridden is kept, and can be taken back.
    kept = other.with_spans((3, 0, 2))
    assert getattr(kept, name) == value
    back = other.with_spans(UNEVEN, **{name: getattr(model, name)})
    np.testing.assert_allclose(back(tokens)[0], model(tokens)[0], atol=1e-6)


def test_narrowed_memories_fit_the_narrower_model(
    after_training_span, make_tokens
):
    model, memories = after_training_span
    tokens = make_tokens(2, 3)
    narrow = model.with_spans((3, 0, 2))
    narrowed = narrow_memories(memories, narrow.spans)
    logits, after = narrow(tokens, narrowed)
    assert np.array(after["position"]).tolist() == [16, 16]
    # The first layer's memory, of embeddings, does not depend on the spans.
    _, wide_after = model(tokens, memories)
    np.testing.assert_array_equal(
        after["memory_00"], np.array(wide_after["memory_00"])[:, -3:]
    )
    # And it is read: the logits are not those of an empty memory.
    assert np.max(np.abs(logits - narrow(tokens)[0])) > 1e-3


def test_memories_of_other_spans_are_refused(after_training_span, make_tokens):
    model, memories = after_training_span
    with pytest.raises(ValueError, match="memory_02 must have the shape"):
        model.with_spans((5, 0, 23))(make_tokens(2, 3), memories)


def test_name_dtype_and_is_long_are_kept(make_model):
    model = make_model(UNEVEN, dtype="mixed_bfloat16", name="lm")
    spans = MemorySpans([3, 2, 1], is_long=[False, True, False])
    other = model.with_spans(spans)
    assert other.spans == spans
    assert other.name == "lm"
    assert other.dtype_policy == model.dtype_policy
    assert type(other) is type(model)


def test_a_list_is_as_good_as_spans(make_model):
    assert make_model().with_spans([3, 2, 1]).spans == MemorySpans([3, 2, 1])


@pytest.mark.parametrize("lengths", [(5, 0), (5, 0, 11, 3)], ids=str)
def test_another_number_of_layers_is_refused(make_model, lengths):
    message = (
        f"^spans must name 3 layers, as the model has; got {len(lengths)}: "
        rf"\[5, 0"
    )
    with pytest.raises(ValueError, match=message):
        make_model().with_spans(lengths)


def test_what_weights_depend_on_cannot_be_overridden(make_model):
    message = (
        "^with_spans takes clamp_length, same_length, attend_to_empty, "
        "memory_format, memory_dtype; got "
        "hidden_size$"
    )
    with pytest.raises(TypeError, match=message.replace("$", ".$")):
        make_model().with_spans(UNEVEN, hidden_size=22)


def test_a_wrong_override_is_refused(make_model):
    with pytest.raises(ValueError, match="^clamp_length must be .* got 0"):
        make_model().with_spans(UNEVEN, clamp_length=0)
