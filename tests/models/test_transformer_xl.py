"""The contracts that hold for every model with memories."""

import keras
import numpy as np
import pytest

from official_lrm import TransformerXL
from official_lrm.memory import reset_lanes

UNEVEN = (5, 0, 11)
CUTS = [
    [29],
    [1] * 29,
    [7, 7, 7, 7, 1],
    [13, 3, 2, 11],
    [1, 28],
    [28, 1],
]


def arrays(memories):
    return {name: np.array(value) for name, value in memories.items()}


def assert_bits_equal(first, second):
    assert np.array(first).tobytes() == np.array(second).tobytes()


class TestSegmentation:
    @pytest.mark.parametrize("cuts", CUTS[1:], ids=str)
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"attend_to_empty": True},
            {"clamp_length": 4, "untie_biases": True},
        ],
        ids=str,
    )
    def test_with_same_length_cuts_do_not_matter(
        self, make_model, make_tokens, run_segments, cuts, options
    ):
        model = make_model(UNEVEN, same_length=True, dtype="float64", **options)
        tokens = make_tokens(2, 29)
        whole, memories = run_segments(model, tokens, [29])
        pieces, final = run_segments(model, tokens, cuts)
        np.testing.assert_allclose(pieces, whole, atol=1e-10)
        assert np.std(whole) > 0.5
        for name in memories:
            np.testing.assert_allclose(final[name], memories[name], atol=1e-10)

    @pytest.mark.parametrize("cuts", [[1] * 11, [7, 4], [2, 3, 5, 1]], ids=str)
    def test_while_history_is_short_cuts_do_not_matter(
        self, make_model, make_tokens, run_segments, cuts
    ):
        model = make_model((11, 13, 12), dtype="float64")
        tokens = make_tokens(2, 11)
        whole, _ = run_segments(model, tokens, [11])
        pieces, _ = run_segments(model, tokens, cuts)
        np.testing.assert_allclose(pieces, whole, atol=1e-10)

    def test_otherwise_they_do(self, make_model, make_tokens, run_segments):
        # Else the two tests above could not fail.
        model = make_model(UNEVEN, dtype="float64")
        tokens = make_tokens(2, 29)
        whole, _ = run_segments(model, tokens, [29])
        pieces, _ = run_segments(model, tokens, [7, 7, 7, 7, 1])
        assert np.max(np.abs(pieces - whole)) > 1e-2

    def test_same_length_sees_less_than_a_long_segment(
        self, make_model, make_tokens
    ):
        tokens = make_tokens(2, 29)
        free, same = (
            np.array(make_model(UNEVEN, same_length=value)(tokens)[0])
            for value in (False, True)
        )
        assert np.max(np.abs(free - same)) > 1e-2


class TestCausality:
    @pytest.mark.parametrize("changed", [0, 3, 6])
    @pytest.mark.parametrize("same_length", [False, True])
    def test_a_token_changes_nothing_before_it(
        self, make_model, make_tokens, changed, same_length
    ):
        model = make_model(UNEVEN, same_length=same_length)
        _, memories = model(make_tokens(2, 13, seed=5))
        tokens = make_tokens(2, 7)
        other = tokens.copy()
        other[1, changed] = (other[1, changed] + 1) % 19
        logits, after = (arrays_of(model, x, memories) for x in (tokens, other))
        assert_bits_equal(logits[0][:, :changed], after[0][:, :changed])
        # Nor anything in the other lane.
        assert_bits_equal(logits[0][0], after[0][0])
        for t in range(changed, 7):
            # Far tokens may be out of reach with same_length, the token
            # itself never is.
            if t == changed or not same_length:
                assert np.any(logits[0][1, t] != after[0][1, t])
        # In the memories of M slots, slot j holds token j - M of the segment.
        for name in ("memory_00", "memory_02"):
            before, now = logits[1][name], after[1][name]
            span = before.shape[1]
            first = max(0, changed + span - 7)
            assert_bits_equal(before[:, :first], now[:, :first])
            assert_bits_equal(before[0], now[0])


def arrays_of(model, tokens, memories):
    logits, memories = model(tokens, memories)
    return np.array(logits), arrays(memories)


class TestLanes:
    def test_resetting_one_leaves_the_others_bit_for_bit(
        self, make_model, make_tokens, run_segments
    ):
        model = make_model(UNEVEN)
        _, memories = run_segments(model, make_tokens(3, 14), [7, 7])
        tokens = make_tokens(3, 7, seed=5)
        reset = reset_lanes(memories, np.array([False, True, False]))
        logits, after = arrays_of(model, tokens, memories)
        reset_logits, reset_after = arrays_of(model, tokens, reset)
        for lane in (0, 2):
            assert_bits_equal(reset_logits[lane], logits[lane])
            for name in after:
                assert_bits_equal(reset_after[name][lane], after[name][lane])
        # The lane that was reset is as a new one.
        fresh_logits, fresh_after = arrays_of(model, tokens, None)
        assert_bits_equal(reset_logits[1], fresh_logits[1])
        for name in after:
            assert_bits_equal(reset_after[name][1], fresh_after[name][1])
        assert np.any(reset_logits[1] != logits[1])
        assert reset_after["position"].tolist() == [21, 7, 21]

    @pytest.mark.parametrize("attend_to_empty", [False, True])
    def test_permuting_them_permutes_the_outputs(
        self, make_model, make_tokens, attend_to_empty
    ):
        model = make_model(UNEVEN, attend_to_empty=attend_to_empty)
        _, memories = model(make_tokens(3, 7))
        # Lanes of different ages.
        memories["position"] = np.array([7, 0, 3], "int32")
        tokens, order = make_tokens(3, 7, seed=5), [2, 0, 1]
        logits, after = arrays_of(model, tokens, memories)
        permuted = {k: v[order] for k, v in arrays(memories).items()}
        logits_2, after_2 = arrays_of(model, tokens[order], permuted)
        np.testing.assert_allclose(logits_2, logits[order], atol=1e-5)
        for name in after:
            np.testing.assert_allclose(
                after_2[name], after[name][order], atol=1e-5
            )

    def test_a_lane_does_not_depend_on_its_company(
        self, make_model, make_tokens, run_segments
    ):
        model = make_model(UNEVEN)
        tokens = make_tokens(3, 14)
        together, _ = run_segments(model, tokens, [7, 7])
        alone, _ = run_segments(model, tokens[1:2], [7, 7])
        np.testing.assert_allclose(alone[0], together[1], atol=1e-5)


class TestEmptyMemory:
    def test_fresh_masked_memory_is_no_memory(self, make_model, make_tokens):
        tokens = make_tokens(2, 7)
        model = make_model(UNEVEN)
        without = model.with_spans((0, 0, 0))
        logits, _ = model(tokens)
        expected, memories = without(tokens)
        assert list(memories) == ["position"]
        np.testing.assert_allclose(logits, expected, atol=1e-5)
        # Attending to zero vectors is something else.
        zeros = model.with_spans(UNEVEN, attend_to_empty=True)
        assert np.max(np.abs(zeros(tokens)[0] - expected)) > 1e-2

    @pytest.mark.parametrize("garbage", [1e3, np.inf, np.nan])
    @pytest.mark.parametrize("attend_to_empty", [False, True])
    def test_what_was_never_written_is_never_read(
        self, make_model, make_tokens, garbage, attend_to_empty
    ):
        model = make_model(UNEVEN, attend_to_empty=attend_to_empty)
        position = np.array([0, 3], "int32")
        clean, dirty = {"position": position}, {"position": position}
        for name, span in (("memory_00", 5), ("memory_02", 11)):
            memory = np.random.default_rng(7).normal(size=(2, span, 14))
            for lane, seen in enumerate(position):
                memory[lane, : span - seen] = 0
            clean[name] = memory.astype("float32")
            dirty[name] = clean[name].copy()
            for lane, seen in enumerate(position):
                dirty[name][lane, : span - seen] = garbage
        tokens = make_tokens(2, 3)
        logits, after = arrays_of(model, tokens, clean)
        dirty_logits, dirty_after = arrays_of(model, tokens, dirty)
        assert np.all(np.isfinite(logits))
        assert_bits_equal(dirty_logits, logits)
        for name in after:
            assert_bits_equal(dirty_after[name], after[name])

    def test_what_was_written_is_read(self, make_model, make_tokens):
        # Each layer reads its memory up to its oldest slot.
        model, tokens = make_model(UNEVEN), make_tokens(2, 3)
        _, memories = model(make_tokens(2, 13))
        logits, _ = model(tokens, memories)
        for name in ("memory_00", "memory_02"):
            changed = arrays(memories)
            changed[name][:, 0] += 1
            assert np.max(np.abs(model(tokens, changed)[0] - logits)) > 1e-4


class TestMemories:
    def test_layer_inputs_are_remembered(self, make_model, make_tokens):
        model = make_model(UNEVEN)
        tokens = make_tokens(2, 7)
        _, memories = model(tokens)
        embedded = np.array(model.backbone.embedding(tokens))
        assert_bits_equal(memories["memory_00"], embedded[:, -5:])
        # Unwritten slots stay zero.
        assert not np.any(np.array(memories["memory_02"])[:, :4])
        assert np.all(np.any(np.array(memories["memory_02"])[:, 4:], axis=-1))

    def test_names_shapes_and_dtypes_stay(self, make_model, make_tokens):
        model = make_model(UNEVEN)
        memories = model.initial_memories(2)
        for length in (1, 3, 13):
            _, memories = model(make_tokens(2, length), memories)
            described = {
                name: (
                    tuple(value.shape),
                    keras.backend.standardize_dtype(value.dtype),
                )
                for name, value in memories.items()
            }
            assert described == model.memory_specs(2)

    def test_the_dict_passed_in_stays(self, make_model, make_tokens):
        model = make_model(UNEVEN)
        memories = model.initial_memories(2)
        before = dict(memories)
        model(make_tokens(2, 7), memories)
        assert memories.keys() == before.keys()
        assert all(memories[name] is before[name] for name in before)

    def test_the_position_saturates(self, make_model, make_tokens):
        # Given a lane that has read all that an int32 can count,
        model, tokens = make_model(UNEVEN), make_tokens(2, 7)
        _, memories = model(make_tokens(2, 13))
        full = {
            **memories,
            "position": np.array([2**31 - 4, 2**31 - 1], "int32"),
        }
        # then it goes on with its memory full.
        logits, after = arrays_of(model, tokens, full)
        assert after["position"].tolist() == [2**31 - 1] * 2
        assert_bits_equal(logits, model(tokens, memories)[0])


class TestBackbone:
    def test_config_round_trip(self, sizes):
        backbone = TransformerXL(
            num_layers=2,
            **sizes,
            dropout=0.2,
            attention_dropout=0.3,
            untie_biases=True,
            layer_norm_epsilon=1e-3,
            initializer_stddev=0.7,
            dtype="mixed_bfloat16",
            name="backbone",
        )
        config = backbone.get_config()
        again = TransformerXL.from_config(config)
        assert again.get_config() == config
        assert again.dtype_policy == backbone.dtype_policy
        assert [w.path for w in again.weights] == [
            w.path for w in backbone.weights
        ]
        assert config["num_layers"] == 2
        assert config["untie_biases"] is True
        assert config["initializer_stddev"] == 0.7

    def test_its_spans_are_those_of_the_memories(self, make_model, make_tokens):
        backbone, tokens = make_model(UNEVEN).backbone, make_tokens(2, 7)
        for spans in (UNEVEN, (0, 3, 1)):
            model = make_model(spans)
            hidden, memories = backbone(tokens, model.initial_memories(2))
            assert hidden.shape == (2, 7, 14)
            assert memories.keys() == model.memory_specs().keys()

    def test_untied_biases_are_one_pair_a_layer(self, make_model, make_tokens):
        untied, tied = make_model(untie_biases=True), make_model()
        assert untied.backbone.content_bias.shape == (3, 3, 5)
        assert tied.backbone.content_bias.shape == (3, 5)
        # Equal for all layers, they are the tied ones.
        for name in ("content_bias", "position_bias"):
            bias = np.array(getattr(tied.backbone, name))
            getattr(untied.backbone, name).assign(np.stack([bias] * 3))
        others = [w for w in tied.weights if not w.name.endswith("_bias")]
        shared = [w for w in untied.weights if not w.name.endswith("_bias")]
        for weight, other in zip(shared, others, strict=True):
            weight.assign(other)
        tokens = make_tokens(2, 7)
        expected = tied(tokens)[0]
        np.testing.assert_allclose(untied(tokens)[0], expected, atol=1e-5)
        # Changed for one layer, only that layer's input stays.
        untied.backbone.position_bias.assign_add(
            np.array([0, 0, 1.0]).reshape(3, 1, 1) * np.ones((3, 3, 5))
        )
        logits, memories = untied(tokens)
        assert np.max(np.abs(logits - expected)) > 1e-3
        np.testing.assert_allclose(
            memories["memory_02"], tied(tokens)[1]["memory_02"], atol=1e-5
        )
