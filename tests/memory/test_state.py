"""Tests of the memories: names, shapes, validity, update, reset, narrowing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from official_lrm.memory import (
    MemorySpans,
    initial_memories,
    memory_name,
    memory_specs,
    narrow_memories,
    reset_lanes,
    update_memory,
    valid_slots,
)
from official_lrm.memory.state import advance_position, check_memories

INT32_MAX = 2**31 - 1
SPANS = MemorySpans([5, 0, 11])
B, D = 2, 7


def numbers(*shape, start=0):
    """Distinct numbers, so that nothing can be mistaken for another."""
    values = np.arange(start, start + np.prod(shape), dtype="float32")
    return values.reshape(shape)


def some_memories():
    return {
        "memory_00": numbers(B, 5, D),
        "memory_02": numbers(B, 11, D, start=1_000),
        "position": np.array([3, 13], "int32"),
    }


class TestNamesAndSpecs:
    def test_names_have_two_digits(self):
        names = [memory_name(layer) for layer in (0, 3, 23, 101)]
        assert names == ["memory_00", "memory_03", "memory_23", "memory_101"]

    def test_specs_skip_layers_without_memory(self):
        assert memory_specs(SPANS, D, B, "bfloat16") == {
            "memory_00": ((2, 5, 7), "bfloat16"),
            "memory_02": ((2, 11, 7), "bfloat16"),
            "position": ((2,), "int32"),
        }

    def test_the_batch_may_be_unknown(self):
        assert memory_specs(MemorySpans([3]), D) == {
            "memory_00": ((None, 3, 7), "float32"),
            "position": ((None,), "int32"),
        }

    def test_no_memory_leaves_the_position(self):
        assert list(memory_specs(MemorySpans([0, 0]), D)) == ["position"]

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
    def test_initial_memories_are_the_specs_in_zeros(self, dtype):
        memories = initial_memories(SPANS, D, B, dtype)
        specs = memory_specs(SPANS, D, B, dtype)
        assert memories.keys() == specs.keys()
        for name, spec in specs.items():
            value = memories[name]
            assert tuple(value.shape) == spec.shape
            assert keras.backend.standardize_dtype(value.dtype) == spec.dtype
            assert not np.any(keras.ops.convert_to_numpy(value))

    def test_the_batch_may_be_a_tensor(self):
        memories = initial_memories(SPANS, D, tf.constant(3))
        assert memories["memory_00"].shape == (3, 5, 7)
        assert memories["position"].shape == (3,)


class TestValidSlots:
    def test_slots_fill_from_the_newest_end(self):
        # Given a span of 3 and lanes that have seen 0, 1, 2, 3, 4 … tokens,
        position = np.array([0, 1, 2, 3, 4, INT32_MAX], "int32")
        assert np.array(valid_slots(position, 3)).tolist() == [
            [False, False, False],
            [False, False, True],
            [False, True, True],
            [True, True, True],
            [True, True, True],
            [True, True, True],
        ]

    def test_span_zero_has_no_slots(self):
        assert valid_slots(np.array([0, 5], "int32"), 0).shape == (2, 0)


class TestUpdateMemory:
    MEMORY = [[[1.0], [2.0], [3.0]]]  # [B = 1, M = 3, D = 1]

    @pytest.mark.parametrize(
        ("segment", "expected"),
        [
            ([], [1, 2, 3]),
            ([4], [2, 3, 4]),
            ([4, 5], [3, 4, 5]),
            ([4, 5, 6], [4, 5, 6]),
            ([4, 5, 6, 7], [5, 6, 7]),
            ([4, 5, 6, 7, 8], [6, 7, 8]),
        ],
    )
    def test_the_newest_positions_stay(self, segment, expected):
        segment = np.array(segment, "float32").reshape(1, -1, 1)
        memory = np.array(self.MEMORY, "float32")
        # T is known when the update is traced,
        updated = update_memory(memory, segment, 3)
        assert np.array(updated)[0, :, 0].tolist() == expected

        # or only when it runs.
        @tf.function(
            input_signature=[
                tf.TensorSpec([None, 3, 1]),
                tf.TensorSpec([None, None, 1]),
            ]
        )
        def update(memory, segment):
            updated = update_memory(memory, segment, 3)
            assert updated.shape == (None, 3, 1)
            return updated

        updated = update(memory, segment)
        assert np.array(updated)[0, :, 0].tolist() == expected

    @pytest.mark.parametrize("length", [3, 5, 13])
    def test_lanes_and_features_stay_apart(self, length):
        memory, segment = numbers(B, 5, D), numbers(B, length, D, start=900)
        expected = np.concatenate([memory, segment], axis=1)[:, -5:]
        updated = update_memory(memory, segment, 5)
        assert np.array_equal(updated, expected)

    def test_span_zero_keeps_nothing(self):
        assert update_memory(None, numbers(B, 3, D), 0) is None

    @pytest.mark.parametrize("known", [True, False])
    @pytest.mark.parametrize("length", [2, 3, 5])
    def test_the_gradient_stops(self, known, length):
        shape = [1, length if known else None, 1]

        @tf.function(
            input_signature=[tf.TensorSpec([1, 3, 1]), tf.TensorSpec(shape)]
        )
        def gradients(memory, segment):
            with tf.GradientTape() as tape:
                tape.watch([memory, segment])
                updated = update_memory(memory, segment, 3)
                # The last term shows that the tape does see the inputs.
                loss = tf.reduce_sum(updated**2) + 7 * segment[0, 0, 0]
            return tape.gradient(
                loss, [memory, segment], unconnected_gradients="zero"
            )

        memory, segment = gradients(numbers(1, 3, 1), numbers(1, length, 1))
        assert not np.any(memory)
        assert np.ravel(segment).tolist() == [7] + [0] * (length - 1)


class TestAdvancePosition:
    def test_it_adds_the_length(self):
        position = np.array([0, 13], "int32")
        advanced = advance_position(position, 5)
        assert advanced.dtype == "int32"
        assert np.array(advanced).tolist() == [5, 18]

    def test_a_length_for_each_lane(self):
        position = np.array([0, 13], "int32")
        lengths = np.array([3, 0], "int32")
        advanced = advance_position(position, lengths)
        assert np.array(advanced).tolist() == [3, 13]

    def test_it_saturates_instead_of_wrapping_around(self):
        position = np.array(
            [INT32_MAX - 8, INT32_MAX - 7, INT32_MAX - 6, INT32_MAX], "int32"
        )
        advanced = np.array(advance_position(position, 7))
        assert advanced.tolist() == [INT32_MAX - 1] + [INT32_MAX] * 3


class TestResetLanes:
    def test_only_the_named_lanes_start_afresh(self):
        memories = some_memories()
        reset = reset_lanes(memories, np.array([False, True]))
        assert np.array(reset["position"]).tolist() == [3, 0]
        assert reset["position"].dtype == "int32"
        assert reset.keys() == memories.keys()
        for name in ("memory_00", "memory_02"):
            lane = np.array(reset[name])[0]
            assert lane.tobytes() == memories[name][0].tobytes()
            # The reset lane has nothing that would be read.
            assert not np.any(valid_slots(reset["position"], 5)[1])

    def test_the_dict_passed_in_stays(self):
        memories = some_memories()
        reset_lanes(memories, np.array([True, True]))
        assert memories["position"].tolist() == [3, 13]


class TestNarrowMemories:
    def test_each_layer_keeps_its_newest_positions(self):
        memories = some_memories()
        narrowed = narrow_memories(memories, MemorySpans([3, 0, 2]))
        assert set(narrowed) == {"memory_00", "memory_02", "position"}
        assert np.array_equal(
            narrowed["memory_00"], memories["memory_00"][:, 2:]
        )
        assert np.array_equal(
            narrowed["memory_02"], memories["memory_02"][:, 9:]
        )
        assert np.array_equal(narrowed["position"], [3, 13])

    def test_a_layer_may_lose_all(self):
        narrowed = narrow_memories(some_memories(), MemorySpans([0, 0, 11]))
        assert set(narrowed) == {"memory_02", "position"}
        assert np.array_equal(
            narrowed["memory_02"], some_memories()["memory_02"]
        )

    @pytest.mark.parametrize(
        ("lengths", "name", "held", "asked"),
        [
            ([7, 0, 11], "memory_00", 5, 7),
            ([5, 1, 11], "memory_01", 0, 1),
            ([5, 0, 12], "memory_02", 11, 12),
            ([5, 0, 11, 3], "memory_03", 0, 3),
        ],
    )
    def test_widening_is_refused(self, lengths, name, held, asked):
        message = f"^cannot widen {name} from {held} to {asked} .*0 to {held}\\"
        with pytest.raises(ValueError, match=message + ".$"):
            narrow_memories(some_memories(), MemorySpans(lengths))

    def test_memories_of_more_layers_are_refused(self):
        message = r"^memories hold memory_02, beyond the 2 layers of .*\[5, 0\]"
        with pytest.raises(ValueError, match=message):
            narrow_memories(some_memories(), MemorySpans([5, 0]))


class TestCheckMemories:
    def test_the_right_ones_pass(self):
        assert check_memories(some_memories(), SPANS, D) is None
        assert check_memories(some_memories(), SPANS, D, batch_size=B) is None

    def test_an_unknown_batch_passes(self):
        @tf.function(
            input_signature=[
                {
                    name: tf.TensorSpec(spec.shape, spec.dtype)
                    for name, spec in memory_specs(SPANS, D).items()
                }
            ]
        )
        def check(memories):
            check_memories(memories, SPANS, D, batch_size=B)
            return memories["position"]

        assert check(some_memories()).shape == (B,)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"memory_02": None}, r"memories lack memory_02; .*\[5, 0, 11\]"),
            ({"position": None}, "memories lack position; "),
            (
                {"memory_00": None, "position": None},
                "memories lack memory_00, position; ",
            ),
            (
                {"memory_01": numbers(B, 3, D)},
                "memories hold memory_01, but .* only memory_00, memory_02, ",
            ),
            (
                {"memory_00": numbers(B, 3, D)},
                r"memory_00 must have the shape \(2, 5, 7\) .*\(2, 3, 7\)",
            ),
            (
                {"memory_02": numbers(B, 11, 3)},
                r"memory_02 must have the shape \(2, 11, 7\) .*\(2, 11, 3\)",
            ),
            (
                {"memory_02": numbers(11, D)},
                r"memory_02 must have the shape \(2, 11, 7\) .*\(11, 7\)",
            ),
            # One lane would broadcast to all.
            (
                {"memory_00": numbers(1, 5, D)},
                r"memory_00 must have the shape \(2, 5, 7\) .*\(1, 5, 7\)",
            ),
            (
                {"position": np.zeros([B, 1], "int32")},
                r"position must have the shape \(2,\) .*\(2, 1\)",
            ),
            (
                {"position": np.zeros([B], "int64")},
                "position must be of dtype int32; got int64",
            ),
        ],
    )
    def test_the_wrong_one_is_named(self, change, message):
        memories = {**some_memories(), **change}
        memories = {k: v for k, v in memories.items() if v is not None}
        with pytest.raises(ValueError, match="^" + message) as info:
            check_memories(memories, SPANS, D, batch_size=B)
        assert "\n" not in str(info.value)

    def test_a_tuple_is_refused(self):
        with pytest.raises(ValueError, match="must be a dict .* got tuple"):
            check_memories(tuple(some_memories().values()), SPANS, D)
