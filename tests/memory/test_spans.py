"""Tests of MemorySpans: the one tuple that all else is derived from."""

import ast
import copy
import json
import pathlib
import sys

import numpy as np
import pytest

import official_lrm.memory.spans
from official_lrm import MemorySpans

MIB = 2**20


def long_layers(spans):
    return [layer for layer, is_long in enumerate(spans.is_long) if is_long]


class TestArrange:
    @pytest.mark.parametrize(
        ("num_layers", "num_long", "placement", "expected"),
        [
            (24, 12, "interleaved", list(range(1, 24, 2))),
            (24, 4, "interleaved", [5, 11, 17, 23]),
            (24, 1, "interleaved", [23]),
            (24, 0, "interleaved", []),
            (24, 24, "interleaved", list(range(24))),
            (18, 3, "interleaved", [5, 11, 17]),
            # ((i + 1) * 24) // 5 - 1 = 24//5, 48//5, 72//5, 96//5, 120//5,
            # each less one.
            (24, 5, "interleaved", [3, 8, 13, 18, 23]),
            (7, 3, "interleaved", [1, 3, 6]),
            (24, 4, "first", [0, 1, 2, 3]),
            (24, 4, "last", [20, 21, 22, 23]),
            (24, 4, "middle", [10, 11, 12, 13]),
            (7, 2, "middle", [2, 3]),
            (7, 0, "first", []),
            (7, 0, "last", []),
            (7, 0, "middle", []),
            (7, 7, "first", list(range(7))),
            (7, 7, "last", list(range(7))),
            (7, 7, "middle", list(range(7))),
            (1, 1, "interleaved", [0]),
        ],
    )
    def test_long_layers_are_as_computed_by_hand(
        self, num_layers, num_long, placement, expected
    ):
        spans = MemorySpans.arrange(
            num_layers, num_long, placement, long=11, short=3
        )
        assert long_layers(spans) == expected
        assert spans.lengths == tuple(
            11 if layer in expected else 3 for layer in range(num_layers)
        )

    @pytest.mark.parametrize("num_layers", [1, 2, 7, 18, 24])
    def test_interleaved_follows_the_formula_for_every_count(self, num_layers):
        for count in range(num_layers + 1):
            spans = MemorySpans.arrange(num_layers, count)
            expected = [
                ((i + 1) * num_layers) // count - 1 for i in range(count)
            ]
            assert long_layers(spans) == expected
            assert len(set(expected)) == count

    def test_the_defaults_are_those_of_the_paper(self):
        spans = MemorySpans.arrange(num_layers=24, num_long=4)
        assert spans == MemorySpans.arrange(24, 4, "interleaved", 2304, 128)

    def test_all_layers_long_though_their_lengths_are_equal(self):
        assert MemorySpans.arrange(3, 3, long=5).is_long == (True,) * 3
        assert MemorySpans.arrange(3, 0, short=5).is_long == (False,) * 3

    def test_long_layers_may_be_the_shorter_ones(self):
        spans = MemorySpans.arrange(3, 1, long=2, short=5)
        assert spans.lengths == (5, 5, 2)
        assert spans.is_long == (False, False, True)


class TestConstruction:
    def test_any_tuple_is_legal_and_the_longest_are_long(self):
        spans = MemorySpans([0, 128, 2304, 128, 2304])
        assert spans.lengths == (0, 128, 2304, 128, 2304)
        assert spans.is_long == (False, False, True, False, True)

    @pytest.mark.parametrize("lengths", [(5, 5, 5), (0, 0), (7,)])
    def test_equal_lengths_have_no_long_layer(self, lengths):
        assert MemorySpans(lengths).is_long == (False,) * len(lengths)

    def test_is_long_says_otherwise(self):
        spans = MemorySpans([5, 3, 2], is_long=[False, True, False])
        assert spans.is_long == (False, True, False)

    def test_integers_of_numpy_become_pythons(self):
        spans = MemorySpans(np.array([3, 5], np.int32), np.array([True, False]))
        assert spans == MemorySpans([3, 5], is_long=[True, False])
        assert {type(length) for length in spans.lengths} == {int}
        assert {type(value) for value in spans.is_long} == {bool}
        assert json.loads(json.dumps(spans.get_config())) == spans.get_config()

    def test_spans_of_spans_keep_is_long(self):
        spans = MemorySpans([5, 3], is_long=[False, True])
        assert MemorySpans(spans) == spans
        assert MemorySpans(spans, is_long=[True, True]).is_long == (True, True)

    def test_a_generator_is_read_once(self):
        assert MemorySpans(x for x in (2, 3)).lengths == (2, 3)

    def test_it_is_a_sequence_of_lengths(self):
        spans = MemorySpans([0, 3, 5])
        assert len(spans) == 3
        assert list(spans) == [0, 3, 5]
        assert (spans[1], spans[-1], spans[:2]) == (3, 5, (0, 3))
        assert 3 in spans and 4 not in spans


class TestWithLong:
    def test_only_long_spans_change(self):
        spans = MemorySpans.arrange(6, 2, long=9, short=1).with_long(20)
        assert spans.lengths == (1, 1, 20, 1, 1, 20)
        assert long_layers(spans) == [2, 5]

    def test_is_long_outlives_a_length_of_zero(self):
        # Given spans whose long layers have become the shortest,
        spans = MemorySpans([3, 11, 3, 11])
        without = spans.with_long(0)
        assert without.lengths == (3, 0, 3, 0)
        assert long_layers(without) == [1, 3]
        # when they are written down, read again and widened,
        text = json.dumps(without.get_config())
        again = MemorySpans.from_config(json.loads(text))
        # then the same layers are long.
        assert again == without
        assert again.with_long(11) == spans

    def test_is_long_outlives_equality_with_the_short_spans(self):
        spans = MemorySpans([3, 11, 3]).with_long(3)
        assert spans.lengths == (3, 3, 3)
        assert spans.with_long(7).lengths == (3, 7, 3)

    def test_the_original_stays(self):
        spans = MemorySpans([3, 11])
        spans.with_long(5)
        assert spans.lengths == (3, 11)

    def test_nothing_changes_without_long_layers(self):
        assert MemorySpans([5, 5]).with_long(7).lengths == (5, 5)


class TestStateBytes:
    @pytest.mark.parametrize(
        ("num_layers", "num_long", "long", "mebibytes"),
        [
            (24, 4, 2304, 46),
            (24, 24, 2304, 216),
            (24, 24, 3800, 356.25),
            (18, 18, 1600, 112.5),
            (24, 24, 6000, 562.5),
        ],
    )
    def test_the_published_figures(self, num_layers, num_long, long, mebibytes):
        spans = MemorySpans.arrange(num_layers, num_long, long=long)
        assert spans.state_bytes(1024) == mebibytes * MIB

    def test_the_test_time_extension(self):
        spans = MemorySpans.arrange(24, 4).with_long(6000)
        assert spans.state_bytes(1024) == 103.75 * MIB

    @pytest.mark.parametrize(
        ("dtype", "width"),
        [("float64", 8), ("float32", 4), ("bfloat16", 2), ("float16", 2)],
    )
    def test_batch_and_dtype_multiply(self, dtype, width):
        spans = MemorySpans([0, 3, 5])
        assert spans.state_bytes(7, 2, dtype) == (3 + 5) * 7 * 2 * width

    def test_int8_has_a_scale_for_each_position(self):
        spans = MemorySpans([0, 3, 5])
        assert spans.state_bytes(7, 2, "int8") == (3 + 5) * (7 + 4) * 2

    def test_no_memory_takes_nothing(self):
        assert MemorySpans([0, 0]).state_bytes(1024) == 0

    def test_integers_of_numpy_do_not_overflow(self):
        size = MemorySpans([2304] * 24).state_bytes(
            np.int32(1024), np.int32(4096)
        )
        assert size == 24 * 2304 * 1024 * 4096 * 4
        assert type(size) is int


class TestDiagram:
    def test_it_is_this_text(self):
        spans = MemorySpans([0, 128, 6000, 3000], [False, False, True, True])
        assert spans.diagram(width=12) == (
            "layer 3        ######  3000 long\n"
            "layer 2  ############  6000 long\n"
            "layer 1             =   128\n"
            "layer 0             .     0"
        )

    def test_layer_numbers_line_up(self):
        rows = MemorySpans([1] * 11).diagram(width=2).splitlines()
        assert rows[0] == "layer 10  ==  1"
        assert rows[-1] == "layer  0  ==  1"
        assert len(rows) == 11

    def test_no_memory_at_all(self):
        assert MemorySpans([0, 0]).diagram(width=3) == (
            "layer 1    .  0\nlayer 0    .  0"
        )

    def test_the_longest_bar_is_48_wide(self):
        assert MemorySpans([7]).diagram() == "layer 0  " + 48 * "=" + "  7"


class TestValueSemantics:
    def test_nothing_can_be_set_or_deleted(self):
        spans = MemorySpans([3, 5])
        for name in ("lengths", "is_long", "_lengths", "_is_long", "other"):
            with pytest.raises(AttributeError):
                setattr(spans, name, (1, 2))
            with pytest.raises(AttributeError):
                delattr(spans, name)
        with pytest.raises(TypeError):
            spans[0] = 1
        assert spans == MemorySpans([3, 5])

    def test_the_callers_list_is_copied(self):
        lengths, is_long = [3, 5], [True, False]
        spans = MemorySpans(lengths, is_long)
        lengths[0], is_long[0] = 7, False
        assert spans == MemorySpans([3, 5], [True, False])

    def test_equality_is_of_lengths_and_is_long(self):
        spans = MemorySpans([3, 5])
        assert spans == MemorySpans((3, 5), is_long=(False, True))
        assert spans != MemorySpans([3, 5], is_long=[True, True])
        assert spans != MemorySpans([3, 7])
        assert spans != MemorySpans([3, 5, 5])
        assert spans != (3, 5)

    def test_equal_spans_are_one_key(self):
        keys = {MemorySpans([3, 5]), MemorySpans((3, 5), [False, True])}
        assert len(keys) == 1
        assert len(keys | {MemorySpans([3, 5], [True, True])}) == 2

    @pytest.mark.parametrize(
        ("spans", "text"),
        [
            (MemorySpans([3, 5]), "MemorySpans([3, 5])"),
            (
                MemorySpans([3, 5], [True, False]),
                "MemorySpans([3, 5], is_long=[True, False])",
            ),
            (
                MemorySpans.arrange(2, 2, long=7),
                "MemorySpans([7, 7], is_long=[True, True])",
            ),
        ],
    )
    def test_repr_evaluates_to_the_same(self, spans, text):
        assert repr(spans) == text
        assert eval(text) == spans

    def test_config_round_trip(self):
        for spans in (
            MemorySpans([0, 3, 5]),
            MemorySpans([5, 3], [False, True]),
            MemorySpans.arrange(3, 3, long=7),
        ):
            assert MemorySpans.from_config(spans.get_config()) == spans
        assert MemorySpans([3, 5], [True, False]).get_config() == {
            "lengths": [3, 5],
            "is_long": [True, False],
        }

    def test_a_config_without_is_long_takes_the_default(self):
        config = {"lengths": [3, 5]}
        assert MemorySpans.from_config(config) == MemorySpans([3, 5])

    def test_copies_are_equal(self):
        spans = MemorySpans([5, 3], [False, True])
        assert copy.copy(spans) == copy.deepcopy(spans) == spans
        assert copy.deepcopy(spans) == spans


ARRANGE = MemorySpans.arrange
SPANS = MemorySpans([3, 5])


@pytest.mark.parametrize(
    ("call", "argument", "value", "allowed"),
    [
        (lambda: ARRANGE(0, 0), "num_layers", "0", "at least 1"),
        (lambda: ARRANGE(-2, 0), "num_layers", "-2", "at least 1"),
        (lambda: ARRANGE(2.0, 0), "num_layers", "2.0", "an integer"),
        (lambda: ARRANGE(True, 0), "num_layers", "True", "an integer"),
        (lambda: ARRANGE("3", 0), "num_layers", "'3'", "an integer"),
        (lambda: ARRANGE(3, 5), "num_long", "5", "from 0 to num_layers=3"),
        (lambda: ARRANGE(3, -1), "num_long", "-1", "from 0 to num_layers=3"),
        (lambda: ARRANGE(3, None), "num_long", "None", "an integer"),
        (
            lambda: ARRANGE(3, 1, "random"),
            "placement",
            "'random'",
            "interleaved, first, last, middle",
        ),
        (
            lambda: ARRANGE(3, 1, ["first"]),
            "placement",
            "['first']",
            "interleaved, first, last, middle",
        ),
        (lambda: ARRANGE(3, 1, long=-7), "long", "-7", "not be negative"),
        (lambda: ARRANGE(3, 0, long=-7), "long", "-7", "not be negative"),
        (lambda: ARRANGE(3, 1, long=7.5), "long", "7.5", "an integer"),
        (lambda: ARRANGE(3, 3, short=-7), "short", "-7", "not be negative"),
        (lambda: ARRANGE(3, 1, short="a"), "short", "'a'", "an integer"),
        (lambda: MemorySpans([]), "lengths", "an empty", "at least one layer"),
        (lambda: MemorySpans(5), "lengths", "5", "sequence of integers"),
        (lambda: MemorySpans(None), "lengths", "None", "sequence of integers"),
        (lambda: MemorySpans("53"), "lengths", "'53'", "sequence of integers"),
        (lambda: MemorySpans({3}), "lengths", "{3}", "sequence of integers"),
        (
            lambda: MemorySpans({3: 5}),
            "lengths",
            "{3: 5}",
            "sequence of integers",
        ),
        (lambda: MemorySpans([3, -5]), "lengths", "-5", "not be negative"),
        (lambda: MemorySpans([3, 5.0]), "lengths", "5.0", "an integer"),
        (lambda: MemorySpans([3, True]), "lengths", "True", "an integer"),
        (lambda: MemorySpans([3, None]), "lengths", "None", "an integer"),
        (lambda: MemorySpans([3, "5"]), "lengths", "'5'", "an integer"),
        (
            lambda: MemorySpans([3, 5, 7], [True]),
            "is_long",
            "1",
            "3 layers",
        ),
        (lambda: MemorySpans([3], True), "is_long", "True", "one bool"),
        (lambda: MemorySpans([3], [2]), "is_long", "(2,)", "bools only"),
        (lambda: MemorySpans([3], ["no"]), "is_long", "('no',)", "bools only"),
        (lambda: SPANS.with_long(-7), "long", "-7", "not be negative"),
        (lambda: SPANS.with_long(7.5), "long", "7.5", "an integer"),
        (lambda: SPANS.with_long(None), "long", "None", "an integer"),
        (lambda: SPANS.state_bytes(0), "hidden_size", "0", "at least 1"),
        (lambda: SPANS.state_bytes(7.5), "hidden_size", "7.5", "an integer"),
        (lambda: SPANS.state_bytes(7, 0), "batch_size", "0", "at least 1"),
        (
            lambda: SPANS.state_bytes(7, 2, "int4"),
            "dtype",
            "'int4'",
            "float64, float32, bfloat16, float16, int8",
        ),
        (lambda: SPANS.diagram(0), "width", "0", "at least 1"),
        (lambda: SPANS.diagram(1.5), "width", "1.5", "an integer"),
    ],
)
def test_an_error_names_the_argument_its_value_and_what_is_allowed(
    call, argument, value, allowed
):
    with pytest.raises(ValueError) as info:
        call()
    message = str(info.value)
    assert message.startswith(argument + " ")
    assert f"got {value}" in message
    assert allowed in message
    assert "\n" not in message


def test_the_module_imports_the_standard_library_only():
    path = pathlib.Path(official_lrm.memory.spans.__file__)
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module)
    assert imported
    roots = {name.partition(".")[0] for name in imported}
    assert roots <= sys.stdlib_module_names
