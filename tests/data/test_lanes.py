"""Tests of the contiguous lanes."""

import itertools

import numpy as np
import pytest

from official_lrm.data import EvaluationLanes, TrainingLanes
from official_lrm.data.token_array import TokenArray

TOKENS = np.arange(10, 18)  # N = 8


def take(dataset, count):
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


def assert_same(batch, other):
    assert batch.keys() == other.keys()
    for name in batch:
        assert batch[name].dtype == other[name].dtype, name
        np.testing.assert_array_equal(batch[name], other[name], name)


def random_tokens(size, seed=0, most=251):
    return np.random.default_rng(seed).integers(0, most, size)


class TestTrainingLanes:
    def test_the_example_of_the_docstring(self):
        lanes = TrainingLanes(TOKENS[:6], num_lanes=2, segment_length=2)
        expected = [
            ([[10, 11], [12, 13]], [[11, 12], [13, 14]], [True, False]),
            ([[12, 13], [14, 0]], [[13, 14], [15, 0]], [False, False]),
            ([[14, 0], [10, 11]], [[15, 0], [11, 12]], [False, True]),
            ([[10, 11], [12, 13]], [[11, 12], [13, 14]], [True, False]),
        ]
        for step, (tokens, targets, reset) in enumerate(expected):
            batch = lanes.batch(step)
            assert batch["tokens"].tolist() == tokens
            assert batch["targets"].tolist() == targets
            assert batch["weights"].tolist() == [
                [float(target != 0) for target in row] for row in targets
            ]
            assert batch["reset"].tolist() == reset
        assert lanes.num_tokens == 6
        assert lanes.segments_per_pass == 3
        assert lanes.steps_per_pass == 2

    def test_shapes_and_dtypes(self):
        batch = TrainingLanes(random_tokens(97), 3, 7).batch(5)
        described = {k: (v.shape, v.dtype) for k, v in batch.items()}
        assert described == {
            "tokens": ((3, 7), np.int32),
            "targets": ((3, 7), np.int32),
            "weights": ((3, 7), np.float32),
            "reset": ((3,), np.bool_),
        }

    @pytest.mark.parametrize("size", [16, 22, 23, 97, 101, 211])
    @pytest.mark.parametrize("num_lanes", [1, 2, 3, 5])
    @pytest.mark.parametrize("length", [1, 2, 3])
    @pytest.mark.parametrize("starts", [None, (0, 5, 6, 13)])
    def test_lanes_are_contiguous_and_cover_the_text(
        self, size, num_lanes, length, starts
    ):
        # Given tokens that are their own positions plus one,
        lanes = TrainingLanes(np.arange(1, size + 1), num_lanes, length, starts)
        starts = starts or (0,)
        edges = [*starts, size - 1]
        segments = sum(
            -(-(end - start) // length)
            for start, end in itertools.pairwise(edges)
        )
        assert lanes.segments_per_pass == segments
        assert lanes.steps_per_pass == int(np.ceil(segments / num_lanes))
        # when each lane has gone more than once round the text,
        batches = [lanes.batch(step) for step in range(segments + 3)]
        for before, batch in itertools.pairwise(batches):
            for lane in range(num_lanes):
                # then it goes on where it was, or at the beginning, and
                # `reset` tells where a document begins.
                next_token = before["targets"][lane].max()
                first = batch["tokens"][lane, 0]
                assert first == (1 if next_token == size else next_token)
                assert batch["reset"][lane] == (first - 1 in starts)
        for batch in batches:
            valid = batch["weights"] == 1
            np.testing.assert_array_equal(
                batch["targets"], (batch["tokens"] + 1) * valid
            )
            assert not batch["tokens"][~valid].any()
            # No segment goes across the start of a document.
            for row in batch["tokens"]:
                assert not set(row[1:] - 1) & set(starts)
        # And one pass reads every target, none twice but for the lanes that
        # are shorter by one.
        read = [
            batch["targets"][lane].tolist()
            for batch in batches[: lanes.steps_per_pass]
            for lane in range(num_lanes)
        ]
        assert set(itertools.chain(*read)) - {0} == set(range(2, size + 1))
        assert len(read) - segments < num_lanes

    def test_a_step_far_away_costs_nothing(self):
        lanes = TrainingLanes(random_tokens(97), 3, 7)
        assert_same(lanes.batch(5 + 14 * 10**15), lanes.batch(5))

    def test_a_slice_of_lanes_is_the_rows_of_the_whole(self):
        lanes = TrainingLanes(random_tokens(211), 5, 3)
        for step in (0, 1, 17):
            full = lanes.batch(step)
            for first, count in itertools.product(range(5), range(1, 6)):
                if first + count > 5:
                    continue
                part = lanes.batch(step, first, count)
                rows = slice(first, first + count)
                assert_same(part, {k: v[rows] for k, v in full.items()})
            rest = lanes.batch(step, first_lane=3)
            assert_same(rest, {k: v[3:] for k, v in full.items()})

    @pytest.mark.parametrize("start", [0, 1, 29, 7 * 10**12 + 1])
    def test_the_dataset_is_the_batches(self, start):
        lanes = TrainingLanes(random_tokens(211), 5, 7)
        for step, batch in enumerate(take(lanes.dataset(start), 67), start):
            assert_same(batch, lanes.batch(step))

    def test_the_dataset_of_a_slice_of_lanes(self):
        lanes = TrainingLanes(random_tokens(211), 5, 7)
        batches = take(lanes.dataset(11, first_lane=1, num_lanes=3), 13)
        for step, batch in enumerate(batches, 11):
            assert_same(batch, lanes.batch(step, 1, 3))

    def test_the_dataset_deals_its_lanes_to_replicas_in_turn(self):
        lanes = TrainingLanes(random_tokens(211), 7, 5)
        dataset = lanes.dataset(3, 1, 6, num_replicas=3)
        for index, batch in enumerate(take(dataset, 51)):
            step, replica = 3 + index // 3, index % 3
            assert_same(batch, lanes.batch(step, 1 + 2 * replica, 2))

    def test_the_dataset_is_endless_with_static_shapes(self):
        import tensorflow as tf

        dataset = TrainingLanes(random_tokens(97), 4, 7).dataset(num_replicas=2)
        assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
        assert dataset.element_spec == {
            "tokens": tf.TensorSpec((2, 7), tf.int32),
            "targets": tf.TensorSpec((2, 7), tf.int32),
            "weights": tf.TensorSpec((2, 7), tf.float32),
            "reset": tf.TensorSpec((2,), tf.bool),
        }

    @pytest.mark.parametrize(
        ("most", "dtype"),
        [(255, np.uint8), (65_535, np.uint16), (2**31 - 1, np.int32)],
    )
    def test_tokens_are_held_in_the_smallest_type(self, most, dtype):
        tokens = np.array([0, most, 1, most - 1, 5], np.int64)
        assert TokenArray(tokens)._values.dtype == dtype
        lanes = TrainingLanes(tokens, 1, 2)
        (batch,) = take(lanes.dataset(), 1)
        assert_same(batch, lanes.batch(0))
        assert batch["targets"].tolist() == [[most, 1]]

    def test_the_corpus_is_not_written_into_a_graph(self):
        import tensorflow as tf

        lanes = TrainingLanes(random_tokens(1_000_003), 2, 3)

        @tf.function
        def total():
            result = tf.constant(0)
            for batch in lanes.dataset().take(2):
                result += tf.reduce_sum(batch["tokens"])
            return result

        graph = total.get_concrete_function().graph.as_graph_def()
        assert graph.ByteSize() < 100_000
        expected = sum(lanes.batch(s)["tokens"].sum() for s in range(2))
        assert total() == expected

    def test_too_short_a_text_says_what_is_needed(self):
        assert TrainingLanes(np.arange(30), 5, 7).batch(0)
        message = (
            "^29 tokens are too few for num_lanes=5 of segment_length=7: "
            "needed are at least 30 tokens; use a longer text, fewer lanes "
            "or shorter segments$"
        )
        with pytest.raises(ValueError, match=message):
            TrainingLanes(np.arange(29), 5, 7)
        with pytest.raises(ValueError, match="^0 tokens are too few"):
            TrainingLanes([], 1, 1)

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda: TrainingLanes(TOKENS, 0, 2), "num_lanes .* >= 1, got 0"),
            (
                lambda: TrainingLanes(TOKENS, 2, 2.0),
                "segment_length must be an integer >= 1, got 2.0",
            ),
            (
                lambda: TrainingLanes(TOKENS[None], 2, 2),
                r"tokens must be a one-dimensional .* shape \(1, 8\)",
            ),
            (
                lambda: TrainingLanes(b"raw text", 2, 2),
                "tokens must be a one-dimensional integer array, got shape",
            ),
            (
                lambda: TrainingLanes(TOKENS / 2, 2, 2),
                "tokens must be integers, got dtype float64",
            ),
            (
                lambda: TrainingLanes([1, 2, -3, 4], 1, 2),
                "tokens must be from 0 to 2147483647, got -3 at index 2",
            ),
            (
                lambda: TrainingLanes([1, 2**31, 4], 1, 2),
                "tokens must be from 0 to .*, got 2147483648 at index 1",
            ),
        ],
    )
    def test_wrong_arguments_are_refused(self, call, message):
        with pytest.raises(ValueError, match=message):
            call()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"step": -1}, "step must be an integer >= 0, got -1"),
            ({"step": 1.5}, "step must be an integer >= 0, got 1.5"),
            ({"first_lane": 2}, "first_lane .* from 0 to 1, got 2"),
            ({"first_lane": -1}, "first_lane .* from 0 to 1, got -1"),
            ({"num_lanes": 3}, "num_lanes .* from 1 to 2, got 3"),
            ({"num_lanes": 0}, "num_lanes .* from 1 to 2, got 0"),
            (
                {"first_lane": 1, "num_lanes": 2},
                "num_lanes .* from 1 to 1, got 2",
            ),
        ],
    )
    def test_wrong_arguments_of_batch_and_dataset(self, arguments, message):
        lanes = TrainingLanes(TOKENS, 2, 2)
        with pytest.raises(ValueError, match=message):
            lanes.batch(**{"step": 0, **arguments})
        if "step" in arguments:
            arguments = {"start_step": arguments["step"]}
        with pytest.raises(ValueError, match=message):
            lanes.dataset(**arguments)

    @pytest.mark.parametrize("num_replicas", [0, 2, 4, 1.0])
    def test_replicas_must_divide_the_lanes(self, num_replicas):
        for lanes in (
            TrainingLanes(TOKENS, 3, 2),
            EvaluationLanes(TOKENS, 3, 2),
        ):
            with pytest.raises(ValueError, match="^num_replicas must ") as info:
                lanes.dataset(num_replicas=num_replicas)
            assert str(info.value).endswith(f"got {num_replicas}")


class TestEvaluationLanes:
    def test_the_example_of_the_docstring(self):
        lanes = EvaluationLanes(TOKENS[:6], num_lanes=2, segment_length=2)
        first, second = lanes.batch(0), lanes.batch(1)
        assert first["tokens"].tolist() == [[10, 11], [12, 13]]
        assert first["targets"].tolist() == [[11, 12], [13, 14]]
        assert first["weights"].tolist() == [[1, 1], [1, 1]]
        assert first["reset"].tolist() == [True, True]
        assert second["tokens"].tolist() == [[0, 0], [14, 0]]
        assert second["targets"].tolist() == [[0, 0], [15, 0]]
        assert second["weights"].tolist() == [[0, 0], [1, 0]]
        assert second["reset"].tolist() == [False, False]
        assert (lanes.num_steps, lanes.num_targets) == (2, 5)

    def test_documents_are_kept_apart(self):
        # Given documents of 3, 1 and 4 tokens,
        lanes = EvaluationLanes(TOKENS, 1, 2, document_starts=[0, 3, 4])
        batches = [lanes.batch(step) for step in range(lanes.num_steps)]
        rows = {
            name: [batch[name][0].tolist() for batch in batches]
            for name in ("tokens", "targets", "reset")
        }
        # then each begins a segment, and all 7 targets are there.
        assert rows["tokens"] == [[10, 11], [12, 0], [13, 0], [14, 15], [16, 0]]
        assert rows["targets"] == [
            [11, 12],
            [13, 0],
            [14, 0],
            [15, 16],
            [17, 0],
        ]
        assert rows["reset"] == [True, False, True, True, False]
        # One that is only the last token has no input.
        last = EvaluationLanes(TOKENS, 1, 7, document_starts=[0, 7])
        assert last.num_steps == 1
        assert last.batch(0)["reset"].tolist() == [True]

    @pytest.mark.parametrize(
        "starts", [[], [1], [0, 0], [0, 5, 3], [0, 8], [0.0], [[0]], [0, -1]]
    )
    @pytest.mark.parametrize("kind", [TrainingLanes, EvaluationLanes])
    def test_wrong_starts_are_refused(self, kind, starts):
        message = "^document_starts must be .* from 0 to 7, .*got "
        with pytest.raises(ValueError, match=message):
            kind(TOKENS, 1, 2, document_starts=starts)

    def test_shapes_and_dtypes(self):
        batch = EvaluationLanes(random_tokens(97), 3, 7).batch(1)
        described = {k: (v.shape, v.dtype) for k, v in batch.items()}
        assert described == {
            "tokens": ((3, 7), np.int32),
            "targets": ((3, 7), np.int32),
            "weights": ((3, 7), np.float32),
            "reset": ((3,), np.bool_),
        }

    @pytest.mark.parametrize("size", [2, 3, 7, 8, 29, 30, 31, 97])
    @pytest.mark.parametrize("num_lanes", [1, 2, 3, 5, 7])
    @pytest.mark.parametrize("length", [1, 2, 3, 5, 101])
    @pytest.mark.parametrize("starts", [(0,), (0, 1, 5, 7, 19)])
    def test_every_target_is_scored_once(self, size, num_lanes, length, starts):
        if num_lanes > size - 1:
            return
        # Given tokens that are their own positions plus one,
        starts = [start for start in starts if start < size]
        lanes = EvaluationLanes(
            np.arange(1, size + 1), num_lanes, length, starts
        )
        batches = [lanes.batch(step) for step in range(lanes.num_steps)]
        tokens, targets, weights = (
            np.concatenate([batch[name] for batch in batches], axis=1)
            for name in ("tokens", "targets", "weights")
        )
        # when all lanes are laid out one after the other,
        scored = targets[weights == 1]
        # then every token but the first is a target, once and in order,
        assert scored.tolist() == list(range(2, size + 1))
        # whose input is the token before it;
        assert tokens[weights == 1].tolist() == list(range(1, size))
        # lanes differ by one target at most, and some lane fills the steps;
        sizes = weights.sum(axis=1)
        assert sizes.max() - sizes.min() <= 1
        assert batches[-1]["weights"].any()
        # padding is zeros on the right of a segment;
        assert set(weights.ravel().tolist()) <= {0.0, 1.0}
        for batch in batches:
            assert (np.diff(batch["weights"], axis=1) <= 0).all()
        assert not tokens[weights == 0].any()
        assert not targets[weights == 0].any()
        assert weights.sum() == lanes.num_targets == size - 1
        # and only lanes and documents begin with a reset.
        lane_starts = [
            lane * (size - 1) // num_lanes for lane in range(num_lanes)
        ]
        firsts = {
            int(row[0]) - 1
            for batch in batches
            for row in batch["tokens"][batch["reset"]]
        }
        documents = {start for start in starts if start < size - 1}
        assert firsts == documents | set(lane_starts)
        resets = sum(int(batch["reset"].sum()) for batch in batches)
        assert resets == len(firsts)

    @pytest.mark.parametrize("size", [6, 29, 31, 97])
    @pytest.mark.parametrize("num_lanes", [1, 2, 5])
    def test_the_dataset_is_the_batches(self, size, num_lanes):
        lanes = EvaluationLanes(random_tokens(size), num_lanes, 3)
        batches = list(lanes.dataset().as_numpy_iterator())
        assert len(batches) == lanes.num_steps
        for step, batch in enumerate(batches):
            assert_same(batch, lanes.batch(step))

    def test_a_slice_of_lanes_is_the_rows_of_the_whole(self):
        lanes = EvaluationLanes(random_tokens(97), 5, 7)
        for step, batch in enumerate(
            lanes.dataset(first_lane=1, num_lanes=3).as_numpy_iterator()
        ):
            whole = lanes.batch(step)
            assert_same(batch, {k: v[1:4] for k, v in whole.items()})
            assert_same(batch, lanes.batch(step, 1, 3))

    def test_the_dataset_deals_its_lanes_to_replicas_in_turn(self):
        import tensorflow as tf

        lanes = EvaluationLanes(random_tokens(97), 7, 5)
        dataset = lanes.dataset(1, 6, num_replicas=3)
        assert dataset.cardinality() == 3 * lanes.num_steps
        assert dataset.element_spec == {
            "tokens": tf.TensorSpec((2, 5), tf.int32),
            "targets": tf.TensorSpec((2, 5), tf.int32),
            "weights": tf.TensorSpec((2, 5), tf.float32),
            "reset": tf.TensorSpec((2,), tf.bool),
        }
        for index, batch in enumerate(dataset.as_numpy_iterator()):
            part = lanes.batch(index // 3, 1 + 2 * (index % 3), 2)
            assert_same(batch, part)

    @pytest.mark.parametrize("tokens", [[], [5]])
    def test_a_text_without_targets_is_refused(self, tokens):
        message = f"tokens must hold at least 2 tokens.*, got {len(tokens)}$"
        with pytest.raises(ValueError, match=message):
            EvaluationLanes(tokens, 1, 3)

    def test_more_lanes_than_targets_are_refused(self):
        assert EvaluationLanes(TOKENS, 7, 3).num_steps == 1
        message = (
            "^num_lanes must be from 1 to the 7 targets of 8 tokens, got 8$"
        )
        with pytest.raises(ValueError, match=message):
            EvaluationLanes(TOKENS, 8, 3)

    def test_the_segment_length_must_be_given(self):
        message = "segment_length must be an integer >= 1, got None"
        with pytest.raises(ValueError, match=message):
            EvaluationLanes(TOKENS)

    @pytest.mark.parametrize("step", [-1, 3, 0.5])
    def test_a_step_that_is_not_there_is_refused(self, step):
        lanes = EvaluationLanes(TOKENS, 1, 3)
        assert lanes.num_steps == 3
        with pytest.raises(ValueError, match=f"step .* 0 to 2, got {step}"):
            lanes.batch(step)
