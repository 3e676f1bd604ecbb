"""Tests of the memories: names, shapes, validity, update, reset, narrowing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from official_lrm.memory import (
    MemoryFormat,
    MemorySpans,
    initial_memories,
    memory_name,
    memory_specs,
    narrow_memories,
    reset_lanes,
    update_memory,
    valid_slots,
)
from official_lrm.memory.state import (
    advance_position,
    check_memories,
    mask_slots,
    take_slots,
)

INT32_MAX = 2**31 - 1
SPANS = MemorySpans([5, 0, 11])
B, D = 2, 7


def hidden(dtype="float32"):
    return MemoryFormat("hidden", D, compute_dtype=dtype)


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
        assert memory_specs(SPANS, hidden("bfloat16"), B) == {
            "memory_00": ((2, 5, 7), "bfloat16"),
            "memory_02": ((2, 11, 7), "bfloat16"),
            "position": ((2,), "int32"),
        }

    def test_the_batch_may_be_unknown(self):
        assert memory_specs(MemorySpans([3]), hidden()) == {
            "memory_00": ((None, 3, 7), "float32"),
            "position": ((None,), "int32"),
        }

    def test_no_memory_leaves_the_position(self):
        assert list(memory_specs(MemorySpans([0, 0]), hidden())) == ["position"]

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
    def test_initial_memories_are_the_specs_in_zeros(self, dtype):
        memories = initial_memories(SPANS, hidden(dtype), B)
        specs = memory_specs(SPANS, hidden(dtype), B)
        assert memories.keys() == specs.keys()
        for name, spec in specs.items():
            value = memories[name]
            assert tuple(value.shape) == spec.shape
            assert keras.backend.standardize_dtype(value.dtype) == spec.dtype
            assert not np.any(keras.ops.convert_to_numpy(value))

    def test_the_batch_may_be_a_tensor(self):
        memories = initial_memories(SPANS, hidden(), tf.constant(3))
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


class TestUpdateMemoryByLengths:
    """Each lane's segment fills the front of its row."""

    MEMORY = numbers(3, 5, D)  # B = 3, M = 5

    @staticmethod
    def expected(memory, segment, lengths):
        lanes = [
            np.concatenate([memory[i], segment[i, :length]])[length:]
            for i, length in enumerate(lengths)
        ]
        return np.stack(lanes)[:, -5:] if lanes else memory

    @pytest.mark.parametrize("known", [True, False])
    @pytest.mark.parametrize(
        ("length", "lengths"),
        [
            (3, (0, 2, 3)),
            (5, (5, 1, 0)),
            (13, (13, 4, 7)),
            (13, (0, 5, 6)),
            (1, (1, 0, 1)),
            (0, (0, 0, 0)),
        ],
    )
    def test_what_is_behind_them_is_left_out(self, known, length, lengths):
        segment = numbers(3, length, D, start=900)

        @tf.function(
            input_signature=[
                tf.TensorSpec([3 if known else None, 5, D]),
                tf.TensorSpec([None, length if known else None, D]),
                tf.TensorSpec([None], tf.int32),
            ]
        )
        def update(memory, segment, lengths):
            updated = update_memory(memory, segment, 5, lengths)
            assert updated.shape[1:] == (5, D)
            return updated

        lengths = np.array(lengths, "int32")
        expected = self.expected(self.MEMORY, segment, lengths)
        np.testing.assert_array_equal(
            update(self.MEMORY, segment, lengths), expected
        )
        np.testing.assert_array_equal(
            update_memory(self.MEMORY, segment, 5, lengths), expected
        )

    def test_full_lengths_are_no_lengths(self):
        segment = numbers(3, 7, D, start=900)
        lengths = np.full(3, 7, "int32")
        np.testing.assert_array_equal(
            update_memory(self.MEMORY, segment, 5, lengths),
            update_memory(self.MEMORY, segment, 5),
        )

    @pytest.mark.parametrize("slot", [(), (3, 2)], ids=str)
    @pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
    def test_slots_of_any_shape_and_dtype(self, slot, dtype):
        memory = tf.cast(numbers(2, 5, *slot) % 113, dtype)
        segment = tf.cast(numbers(2, 3, *slot, start=60) % 113, dtype)
        updated = update_memory(memory, segment, 5, np.array([2, 0], "int32"))
        assert updated.dtype == dtype
        np.testing.assert_array_equal(
            updated[0], tf.concat([memory[0, 2:], segment[0, :2]], axis=0)
        )
        np.testing.assert_array_equal(updated[1], memory[1])

    def test_no_lanes(self):
        updated = update_memory(
            numbers(0, 5, D), numbers(0, 3, D), 5, np.zeros([0], "int32")
        )
        assert updated.shape == (0, 5, D)

    def test_span_zero_keeps_nothing(self):
        lengths = np.array([1, 3], "int32")
        assert update_memory(None, numbers(B, 3, D), 0, lengths) is None

    def test_the_gradient_stops(self):
        segment = tf.constant(numbers(3, 7, D))
        with tf.GradientTape() as tape:
            tape.watch(segment)
            lengths = np.array([7, 3, 0], "int32")
            updated = update_memory(self.MEMORY, segment, 5, lengths)
            loss = tf.reduce_sum(updated**2) + 7 * segment[0, 0, 0]
        gradient = np.array(tape.gradient(loss, segment))
        assert np.flatnonzero(gradient).tolist() == [0]
        assert gradient[0, 0, 0] == 7


class TestTakeSlots:
    @pytest.mark.parametrize("slot", [(), (7,), (3, 2)], ids=str)
    def test_each_lane_begins_where_it_says(self, slot):
        slots = numbers(2, 11, *slot)
        taken = take_slots(slots, np.array([3, 6], "int32"), 5)
        assert taken.shape == (2, 5, *slot)
        np.testing.assert_array_equal(taken[0], slots[0, 3:8])
        np.testing.assert_array_equal(taken[1], slots[1, 6:])

    def test_a_ring_goes_on_at_its_begin(self):
        slots = numbers(3, 5)
        starts = np.array([3, 0, 5 * 7 + 4], "int32")
        taken = take_slots(slots, starts, 4, ring=True)
        order = [[3, 4, 0, 1], [0, 1, 2, 3], [4, 0, 1, 2]]
        np.testing.assert_array_equal(
            taken, np.take_along_axis(slots, np.array(order), axis=1)
        )

    def test_sizes_may_be_known_at_run_time_only(self):
        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None, 7]),
                tf.TensorSpec([None], tf.int32),
            ]
        )
        def take(slots, start):
            taken = take_slots(slots, start, 3, ring=True)
            assert taken.shape == (None, 3, 7)
            return taken

        slots = numbers(2, 5, 7)
        taken = take(slots, np.array([4, 1], "int32"))
        np.testing.assert_array_equal(taken[0], slots[0, [4, 0, 1]])
        np.testing.assert_array_equal(taken[1], slots[1, 1:4])


class TestMaskSlots:
    VALID = np.array([[False, False, True], [True, True, True]])

    @pytest.mark.parametrize("slot", [(), (7,), (5, 2)], ids=str)
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
    def test_what_was_never_written_is_zero(self, slot, dtype):
        memory = tf.cast(1 + numbers(2, 3, *slot) % 113, dtype)
        masked = mask_slots(memory, self.VALID)
        assert masked.dtype == dtype
        assert masked.shape == memory.shape
        assert not np.any(masked[0, :2])
        np.testing.assert_array_equal(masked[:1, 2], memory[:1, 2])
        np.testing.assert_array_equal(masked[1], memory[1])

    def test_it_may_have_been_no_number(self):
        memory = np.full([2, 3, 7], np.nan, "float32")
        memory[:, 2] = 5
        masked = np.array(mask_slots(memory, self.VALID))
        assert not np.any(masked[0, :2])
        assert np.all(np.isnan(masked[1, :2]))
        assert np.all(masked[:, 2] == 5)

    def test_the_gradient_stops(self):
        memory = tf.constant(numbers(2, 3, 7))
        with tf.GradientTape() as tape:
            tape.watch(memory)
            masked = mask_slots(memory, self.VALID)
            loss = tf.reduce_sum(masked) + 7 * memory[1, 2, 6]
        gradient = np.array(tape.gradient(loss, memory))
        assert np.flatnonzero(gradient).tolist() == [2 * 3 * 7 - 1]


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


class TestNarrowMemoriesOfOtherFormats:
    """Keys, values and scales lose the same positions."""

    @pytest.fixture(params=["key_value", "hidden"])
    def memories(self, request):
        memory_format = MemoryFormat(request.param, D, 3, 2, dtype="int8")
        specs = memory_specs(SPANS, memory_format, B)
        return {
            name: tf.cast(
                np.random.default_rng(i).integers(-127, 128, spec.shape),
                spec.dtype,
            )
            for i, (name, spec) in enumerate(specs.items())
        }

    def test_each_layer_keeps_its_newest_positions(self, memories):
        assert len(memories) in (5, 9)
        narrowed = narrow_memories(memories, MemorySpans([3, 0, 2]))
        assert narrowed.keys() == memories.keys()
        for name, value in memories.items():
            if name == "position":
                kept = value
            else:
                kept = (
                    value[:, 5 - 3 :] if "_00" in name else value[:, 11 - 2 :]
                )
            assert narrowed[name].dtype == value.dtype
            np.testing.assert_array_equal(narrowed[name], kept)

    def test_a_layer_may_lose_all(self, memories):
        narrowed = narrow_memories(memories, MemorySpans([0, 0, 11]))
        assert narrowed.keys() == {x for x in memories if "_00" not in x}
        for name, value in narrowed.items():
            np.testing.assert_array_equal(value, memories[name])

    def test_widening_is_refused(self, memories):
        name = next(name for name in memories if "_02" in name)
        message = f"^cannot widen {name} from 11 to 13 .* from 0 to 11"
        with pytest.raises(ValueError, match=message):
            narrow_memories(memories, MemorySpans([5, 0, 13]))
        message = "^cannot widen memory_01 from 0 to 1 .* from 0 to 0"
        with pytest.raises(ValueError, match=message):
            narrow_memories(memories, MemorySpans([5, 1, 11]))

    def test_memories_of_more_layers_are_refused(self, memories):
        beyond = ", ".join(sorted(name for name in memories if "_02" in name))
        message = rf"^memories hold {beyond}, beyond the 2 layers of .*\[5, 0\]"
        with pytest.raises(ValueError, match=message):
            narrow_memories(memories, MemorySpans([5, 0]))

    def test_what_is_no_memory_is_refused(self, memories):
        message = "^memories hold logits, beyond the 3 layers"
        with pytest.raises(ValueError, match=message):
            narrow_memories({**memories, "logits": 0}, SPANS)


class TestCheckMemoriesOfOtherFormats:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"key_00_scale": None}, "memories lack key_00_scale; "),
            ({"value_02": None}, "memories lack value_02; "),
            (
                {"memory_00": numbers(B, 5, D)},
                "memories hold memory_00, but .* only key_00, key_00_scale, ",
            ),
            (
                {"key_00": np.zeros([B, 5, 2, 3], "int8")},
                r"key_00 must have the shape \(2, 5, 3, 2\) .*\(2, 5, 2, 3\)",
            ),
            (
                {"value_02_scale": np.zeros([B, 11, 1], "float32")},
                r"value_02_scale must have the shape \(2, 11\) ",
            ),
            # What 1.0 means depends on the scale.
            (
                {"key_00": np.zeros([B, 5, 3, 2], "float32")},
                "key_00 must be of dtype int8; got float32",
            ),
            (
                {"key_00_scale": np.zeros([B, 5], "int8")},
                "key_00_scale must be of dtype float32; got int8",
            ),
        ],
    )
    def test_the_wrong_one_is_named(self, change, message):
        memory_format = MemoryFormat("key_value", D, 3, 2, dtype="int8")
        memories = initial_memories(SPANS, memory_format, B)
        assert check_memories(memories, SPANS, memory_format, B) is None
        memories = {**memories, **change}
        memories = {k: v for k, v in memories.items() if v is not None}
        with pytest.raises(ValueError, match="^" + message):
            check_memories(memories, SPANS, memory_format, B)

    def test_integers_are_no_floats(self):
        memories = {**some_memories(), "memory_00": np.ones([B, 5, D], "int8")}
        message = "^memory_00 must be of dtype float32; got int8"
        with pytest.raises(ValueError, match=message):
            check_memories(memories, SPANS, hidden())


class TestCheckMemories:
    def test_the_right_ones_pass(self):
        assert check_memories(some_memories(), SPANS, hidden()) is None
        assert (
            check_memories(some_memories(), SPANS, hidden(), batch_size=B)
            is None
        )

    def test_an_unknown_batch_passes(self):
        @tf.function(
            input_signature=[
                {
                    name: tf.TensorSpec(spec.shape, spec.dtype)
                    for name, spec in memory_specs(SPANS, hidden()).items()
                }
            ]
        )
        def check(memories):
            check_memories(memories, SPANS, hidden(), batch_size=B)
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
            check_memories(memories, SPANS, hidden(), batch_size=B)
        assert "\n" not in str(info.value)

    def test_a_tuple_is_refused(self):
        with pytest.raises(ValueError, match="must be a dict .* got tuple"):
            check_memories(tuple(some_memories().values()), SPANS, hidden())
