"""Tests of what a memory keeps of a position, and in which dtype."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from official_lrm.memory import MemoryFormat, MemorySpans, memory_specs
from official_lrm.memory.memory_format import (
    dequantize,
    memory_name,
    quantize,
    split_name,
)

# D, N, H; tests add B = 2 lanes and T = 11 positions.
SIZES = {"hidden_size": 7, "num_heads": 3, "head_size": 5}
CONTENTS = ("hidden", "key_value")


def make_format(content="hidden", dtype=None, compute_dtype="float32"):
    return MemoryFormat(
        content, **SIZES, dtype=dtype, compute_dtype=compute_dtype
    )


def dtype_of(value):
    return keras.backend.standardize_dtype(value.dtype)


def some_positions(memory_format, lanes=2, length=11, seed=3):
    """Positions of all magnitudes, and some of nothing but zeros."""
    rng = np.random.default_rng(seed)
    parts = {}
    for part, shape in memory_format.parts.items():
        slots = (lanes, length) + (1,) * len(shape)
        values = rng.normal(size=(lanes, length, *shape))
        values *= 10 ** rng.uniform(-9, 9, slots)
        values *= rng.random(slots) < 0.9
        parts[part] = tf.cast(values, memory_format.compute_dtype)
    return parts


class TestSlots:
    @pytest.mark.parametrize(
        ("content", "dtype", "expected"),
        [
            ("hidden", None, {"memory_03": ((7,), "float32")}),
            ("hidden", "bfloat16", {"memory_03": ((7,), "bfloat16")}),
            (
                "hidden",
                "int8",
                {
                    "memory_03": ((7,), "int8"),
                    "memory_03_scale": ((), "float32"),
                },
            ),
            (
                "key_value",
                None,
                {
                    "key_03": ((3, 5), "float32"),
                    "value_03": ((3, 5), "float32"),
                },
            ),
            (
                "key_value",
                "int8",
                {
                    "key_03": ((3, 5), "int8"),
                    "key_03_scale": ((), "float32"),
                    "value_03": ((3, 5), "int8"),
                    "value_03_scale": ((), "float32"),
                },
            ),
        ],
    )
    def test_names_shapes_and_dtypes(self, content, dtype, expected):
        memory_format = make_format(content, dtype)
        assert memory_format.slots(3) == expected
        assert list(memory_format.slots(3)) == list(expected)

    def test_specs_of_all_layers(self):
        memory_format = make_format("key_value", "int8")
        specs = memory_specs(MemorySpans([13, 0, 1]), memory_format, 2)
        assert specs == {
            "key_00": ((2, 13, 3, 5), "int8"),
            "key_00_scale": ((2, 13), "float32"),
            "value_00": ((2, 13, 3, 5), "int8"),
            "value_00_scale": ((2, 13), "float32"),
            "key_02": ((2, 1, 3, 5), "int8"),
            "key_02_scale": ((2, 1), "float32"),
            "value_02": ((2, 1, 3, 5), "int8"),
            "value_02_scale": ((2, 1), "float32"),
            "position": ((2,), "int32"),
        }

    @pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
    def test_by_default_it_is_the_compute_dtype(self, compute_dtype):
        memory_format = make_format(compute_dtype=compute_dtype)
        assert memory_format.dtype == compute_dtype
        assert memory_format.is_lossless
        assert not make_format("hidden", "int8", compute_dtype).is_lossless
        same = make_format("hidden", compute_dtype, compute_dtype)
        assert same.is_lossless

    @pytest.mark.parametrize(
        "name",
        [
            "memory_00",
            "memory_101",
            "key_03",
            "value_23",
            "memory_03_scale",
            "key_03_scale",
            "value_101_scale",
        ],
    )
    def test_names_can_be_taken_apart(self, name):
        part, layer, is_scale = split_name(name)
        assert memory_name(layer, part) + "_scale" * is_scale == name

    @pytest.mark.parametrize(
        "name",
        [
            "position",
            "memory",
            "memory_",
            "memory_0x",
            "memory_-1",
            "memory_00_scales",
            "memory_00_scale_",
            "query_00",
            "scale",
        ],
    )
    def test_other_names_are_none_of_a_memory(self, name):
        assert split_name(name) is None

    @pytest.mark.parametrize("content", ["Hidden", "keys", "", None])
    def test_another_content_is_refused(self, content):
        message = (
            f"^memory_format must be one of hidden, key_value; got {content!r}."
        )
        with pytest.raises(ValueError, match=message):
            make_format(content)

    @pytest.mark.parametrize("dtype", ["int4", "uint8", "mixed_bfloat16", ""])
    def test_another_dtype_is_refused(self, dtype):
        message = (
            f"^memory_dtype must be one of float64, .*, int8; got {dtype!r}."
        )
        with pytest.raises(ValueError, match=message):
            make_format(dtype=dtype)


class TestQuantize:
    @pytest.mark.parametrize(
        ("position", "integers", "scale"),
        [
            # Halves go to the even integer.
            ([3, -254, 0], [2, -127, 0], 2),
            ([0.5, 127, 1.5], [0, 127, 2], 1),
            # 100 / 127 is 201.57 / 256; bfloat16 has the next integers only.
            ([100, -0.3, 50], [127, 0, 63], 202 / 256),
            # 65 / 127 is 131.02 / 256.
            ([0.7, -65, 7], [1, -127, 14], 131 / 256),
            ([0, 0, 0], [0, 0, 0], 0),
        ],
    )
    def test_by_hand(self, position, integers, scale):
        values, scales = quantize(np.array([[position]], "float32"))
        assert dtype_of(values) == "int8"
        assert dtype_of(scales) == "float32"
        assert np.array(values).tolist() == [[integers]]
        assert np.array(scales).tolist() == [[scale]]
        decoded = np.array(dequantize(values, scales))
        assert decoded.dtype == "float32"
        assert decoded.tolist() == [[[scale * i for i in integers]]]

    def test_each_position_has_its_own_scale(self):
        # Over heads and features, not over lanes nor positions.
        values = np.zeros([2, 3, 5, 7], "float32")
        values[1, 2, 4, 3] = -254
        values[0, 1, 0, 6] = 127
        integers, scales = quantize(values)
        assert np.array(scales).tolist() == [[0, 1, 0], [0, 0, 2]]
        expected = np.zeros(values.shape)
        expected[1, 2, 4, 3] = -127
        expected[0, 1, 0, 6] = 127
        np.testing.assert_array_equal(integers, expected)

    @pytest.mark.parametrize("content", CONTENTS)
    def test_the_error_is_at_most_half_a_step(self, content):
        parts = some_positions(make_format(content), 13, 101)
        worst = 0
        for value in parts.values():
            integers, scales = quantize(value)
            axes = tuple(range(2, value.ndim))
            error = np.abs(np.array(dequantize(integers, scales)) - value)
            error = np.max(error, axis=axes)
            assert np.all(error <= np.array(scales) * 0.500001)
            # The extreme too, always 127 steps: bfloat16 rounds the scale by
            # 1 / 256 at most.
            largest = np.max(np.abs(value), axis=axes)
            kept = np.max(np.abs(np.array(integers, "int32")), axis=axes)
            assert np.all(kept == np.where(largest > 0, 127, 0))
            off = np.abs(127 * np.array(scales) - largest)
            assert np.all(off <= largest / 256)
            worst = max(worst, np.max(error / np.maximum(scales, 1e-30)))
        # And it does come close, so that the bound means something.
        assert worst > 0.49

    def test_zeros_stay_zeros_and_nothing_is_divided_by_them(self):
        integers, scales = quantize(np.zeros([2, 3, 7], "float32"))
        assert not np.any(integers)
        assert np.array(scales).tolist() == [[0] * 3] * 2
        assert not np.any(dequantize(integers, scales))


class TestEncoding:
    @pytest.mark.parametrize("content", CONTENTS)
    @pytest.mark.parametrize("dtype", [None, "bfloat16", "float64", "int8"])
    @pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
    def test_tensors_are_those_of_the_slots(
        self, content, dtype, compute_dtype
    ):
        memory_format = make_format(content, dtype, compute_dtype)
        parts = some_positions(memory_format)
        tensors = memory_format.encode(3, parts)
        slots = memory_format.slots(3)
        assert tensors.keys() == slots.keys()
        for name, (shape, slot_dtype) in slots.items():
            assert tensors[name].shape == (2, 11, *shape)
            assert dtype_of(tensors[name]) == slot_dtype
        decoded = memory_format.decode(3, {**tensors, "position": None})
        assert decoded.keys() == parts.keys()
        for part, value in parts.items():
            assert dtype_of(decoded[part]) == compute_dtype
            assert decoded[part].shape == value.shape

    @pytest.mark.parametrize("content", CONTENTS)
    @pytest.mark.parametrize(
        ("dtype", "tolerance"), [("bfloat16", 2**-8), ("float16", 2**-11)]
    )
    def test_smaller_floats(self, content, dtype, tolerance):
        memory_format = make_format(content, dtype)
        rng = np.random.default_rng(3)
        parts = {
            part: rng.normal(size=(2, 11, *shape)).astype("float32")
            for part, shape in memory_format.parts.items()
        }
        rounded = memory_format.rounded(parts)
        for part, value in parts.items():
            assert np.any(rounded[part] != value)
            np.testing.assert_allclose(
                rounded[part], value, rtol=tolerance, atol=1e-6
            )

    @pytest.mark.parametrize("content", CONTENTS)
    def test_what_loses_nothing_is_handed_on(self, content):
        memory_format = make_format(content)
        parts = some_positions(memory_format)
        assert memory_format.rounded(parts) is parts
        wide = make_format(content, "float64")
        for part, value in wide.rounded(parts).items():
            np.testing.assert_array_equal(value, parts[part])

    @pytest.mark.parametrize("content", CONTENTS)
    def test_rounding_is_encoding_and_decoding(self, content):
        memory_format = make_format(content, "int8")
        parts = some_positions(memory_format)
        expected = memory_format.decode(3, memory_format.encode(3, parts))
        for part, value in memory_format.rounded(parts).items():
            np.testing.assert_array_equal(value, expected[part])
            assert np.any(value != parts[part])


class _Twice(tf.Module):
    """Encodes, and encodes again what was decoded."""

    def __init__(self, memory_format):
        super().__init__()
        self.memory_format = memory_format
        signature = [
            {
                part: tf.TensorSpec(
                    [None, None, *shape], memory_format.compute_dtype
                )
                for part, shape in memory_format.parts.items()
            }
        ]
        self.call = tf.function(self.call, input_signature=signature)

    def call(self, parts):
        once = self.memory_format.encode(3, parts)
        decoded = self.memory_format.decode(3, once)
        return once, self.memory_format.encode(3, decoded)


class TestIdempotence:
    """Bit for bit, or a memory would drift as it is handed on."""

    @pytest.fixture(params=["eager", "graph", "xla", "exported"])
    def twice(self, request, tmp_path):
        def run(memory_format, parts):
            module = _Twice(memory_format)
            if request.param == "eager":
                return _Twice.call(module, parts)
            if request.param == "xla":
                function = tf.function(
                    lambda parts: _Twice.call(module, parts), jit_compile=True
                )
                return function(parts)
            if request.param == "exported":
                tf.saved_model.save(module, str(tmp_path))
                return tf.saved_model.load(str(tmp_path)).call(parts)
            return module.call(parts)

        return run

    def assert_same_bits(self, once, again):
        assert once.keys() == again.keys()
        for name, value in once.items():
            assert again[name].dtype == value.dtype
            assert np.array(again[name]).tobytes() == np.array(value).tobytes()

    @pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
    @pytest.mark.parametrize(
        ("content", "compute_dtype"),
        [
            ("hidden", "float32"),
            ("key_value", "float32"),
            ("key_value", "float64"),
        ],
    )
    def test_encoding_again_gives_the_same(
        self, twice, content, dtype, compute_dtype
    ):
        memory_format = make_format(content, dtype, compute_dtype)
        once, again = twice(
            memory_format, some_positions(memory_format, 13, 101)
        )
        assert len(np.unique(next(iter(once.values())))) > 200
        self.assert_same_bits(once, again)

    def test_with_every_scale_there_is(self, twice):
        # Given all positive bfloat16, but for those below the smallest normal
        # number and those of which 127 times is beyond the largest,
        bits = np.arange(0x0080, 0x7F80, dtype="uint32") << 16
        scales = bits.view("float32")
        scales = scales[scales < 2.0**120]
        assert len(scales) > 31_000
        # when a position's largest number is 127 times the scale,
        rng = np.random.default_rng(3)
        integers = rng.integers(-127, 128, [1, len(scales), 7])
        integers[0, :, 5] = 127
        values = tf.cast(integers, tf.float32) * scales[None, :, None]
        once, again = twice(make_format(dtype="int8"), {"memory": values})
        # then integers and scale are found, and found again.
        np.testing.assert_array_equal(once["memory_03_scale"][0], scales)
        np.testing.assert_array_equal(once["memory_03"], integers)
        self.assert_same_bits(once, again)
