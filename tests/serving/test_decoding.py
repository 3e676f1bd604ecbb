"""Tests of the `generate` signature against a plain loop over the model."""

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.models.sampling import sample_tokens

# B = 3 lanes that differ in everything; the last one writes nothing.
LANES = {
    "max_new_tokens": np.array([17, 29, 0], "int32"),
    "temperature": np.array([1.5, 0.7, 1], "float32"),
    "top_k": np.array([0, 7, 3], "int32"),
    "top_p": np.array([0.9, 1, 1], "float32"),
    "seed": np.array([2**40 + 5, -3, 11], "int64"),
    "stop_token": np.array([-1, -1, -1], "int32"),
}


def generate(export, tokens, memories, **sampling):
    """Calls the signature; returns the tokens of each lane, and memories."""
    inputs = {"tokens": tokens, **memories, **sampling}
    outputs = export.loaded.signatures["generate"](
        **{name: tf.constant(value) for name, value in inputs.items()}
    )
    outputs = {name: value.numpy() for name, value in outputs.items()}
    generated = outputs.pop("generated")
    lengths = outputs.pop("generated_lengths")
    assert generated.dtype == lengths.dtype == "int32"
    width = max(sampling["max_new_tokens"], default=0)
    assert generated.shape == (len(tokens), width)
    for row, length in zip(generated, lengths, strict=True):
        assert np.all(row[:length] >= 0)
        assert np.all(row[length:] == -1)
    rows = [
        row[:length].tolist()
        for row, length in zip(generated, lengths, strict=True)
    ]
    return rows, outputs


def plain_loop(
    model,
    tokens,
    memories,
    max_new_tokens,
    temperature,
    top_k,
    top_p,
    seed,
    stop_token,
):
    """What `generate` is to do, for one lane."""
    drawn = []
    logits, memories = model(tokens, memories)
    while len(drawn) < max_new_tokens[0]:
        drawn += (
            sample_tokens(
                logits[:, -1],
                temperature,
                top_k,
                top_p,
                seed.view("uint32").reshape(1, 2),
                memories["position"],
            )
            .numpy()
            .tolist()
        )
        if drawn[-1] == stop_token[0] or len(drawn) == max_new_tokens[0]:
            break
        logits, memories = model(np.array([drawn[-1:]], "int32"), memories)
    return drawn, memories


def lane(values, index):
    return {name: value[[index]] for name, value in values.items()}


@pytest.fixture(scope="module")
def decoder(short):
    """The model that `generate` runs."""
    return short.model.with_spans(short.model.spans, same_length=True)


@pytest.fixture
def started(decoder, make_tokens):
    """Memories of lanes at the positions 0, 3 and 13."""
    fresh = {
        name: np.array(value)
        for name, value in decoder.initial_memories(1).items()
    }
    lanes = [fresh]
    for length in (3, 13):
        _, memories = decoder(make_tokens(1, length, seed=length))
        lanes.append(memories)
    return {
        name: np.concatenate([np.array(memories[name]) for memories in lanes])
        for name in fresh
    }


class TestPlainLoop:
    def test_it_is_the_loop(
        self, short, decoder, started, make_tokens, assert_memories_equal
    ):
        # Given prompts in the middle of a text,
        tokens = make_tokens(3, 7)
        # when all lanes are generated at once,
        rows, memories = generate(short, tokens, started, **LANES)
        # then each is what a loop over the model gives for it alone,
        assert [len(row) for row in rows] == [17, 29, 0]
        for i in range(3):
            expected, final = plain_loop(
                decoder, tokens[[i]], lane(started, i), **lane(LANES, i)
            )
            assert rows[i] == expected
            assert_memories_equal(lane(memories, i), final, atol=1e-5)
        # which have consumed all but the last token written.
        assert memories["position"].tolist() == [0 + 7 + 16, 3 + 7 + 28, 13 + 7]

    def test_stop_tokens_end_a_lane_and_are_written(
        self, short, decoder, started, make_tokens, assert_memories_equal
    ):
        # Given stop tokens that a run without them writes,
        tokens = make_tokens(3, 7)
        rows, _ = generate(short, tokens, started, **LANES)
        stop_token = np.array([rows[0][5], rows[1][11], 2], "int32")
        lanes = {**LANES, "stop_token": stop_token}
        # when they are given,
        stopped, memories = generate(short, tokens, started, **lanes)
        # then the lanes end with their first occurrence.
        for i in range(2):
            end = rows[i].index(stop_token[i]) + 1
            assert stopped[i] == rows[i][:end]
            expected, final = plain_loop(
                decoder, tokens[[i]], lane(started, i), **lane(lanes, i)
            )
            assert stopped[i] == expected
            assert_memories_equal(lane(memories, i), final, atol=1e-5)
        assert max(map(len, stopped)) < 29

    def test_temperature_zero_takes_the_likeliest(
        self, short, decoder, started, make_tokens
    ):
        tokens = make_tokens(3, 5)
        lanes = {
            **LANES,
            "max_new_tokens": np.array([7, 7, 7], "int32"),
            "temperature": np.zeros(3, "float32"),
        }
        rows, _ = generate(short, tokens, started, **lanes)
        logits, memories = decoder(tokens, started)
        for step in range(7):
            likeliest = np.argmax(logits[:, -1], axis=-1)
            assert [row[step] for row in rows] == likeliest.tolist()
            logits, memories = decoder(likeliest[:, None], memories)

    def test_nothing_is_written_but_the_prompt_is_read(
        self, short, decoder, started, make_tokens, assert_memories_equal
    ):
        tokens = make_tokens(3, 13)
        lanes = {**LANES, "max_new_tokens": np.zeros(3, "int32")}
        rows, memories = generate(short, tokens, started, **lanes)
        assert rows == [[], [], []]
        _, expected = decoder(tokens, started)
        assert_memories_equal(memories, expected, atol=1e-5)

    def test_no_lanes(self, short, make_tokens):
        rows, memories = generate(
            short,
            make_tokens(0, 5),
            short.model.initial_memories(0),
            **{name: value[:0] for name, value in LANES.items()},
        )
        assert rows == []
        assert memories["memory_00"].shape == (0, 5, 10)


class TestLanes:
    def test_finished_lanes_freeze_bit_for_bit(
        self, short, started, make_tokens, assert_memories_equal
    ):
        # Given lanes that write nothing, 3 tokens, and as long as others,
        tokens = make_tokens(3, 7)
        brief = np.array([0, 3, 3], "int32")
        longer = np.array([0, 3, 31], "int32")
        expected, frozen = generate(
            short, tokens, started, **{**LANES, "max_new_tokens": brief}
        )
        # when the others go on,
        rows, memories = generate(
            short, tokens, started, **{**LANES, "max_new_tokens": longer}
        )
        # then the finished ones stay as they were, and the others do not.
        assert rows[:2] == expected[:2]
        assert rows[2][:3] == expected[2]
        for i in range(2):
            assert_memories_equal(lane(memories, i), lane(frozen, i))
        assert memories["position"][2] == frozen["position"][2] + 28
        assert np.all(memories["memory_02"][2] != frozen["memory_02"][2])

    def test_a_lane_stopped_by_its_token_freezes_too(
        self, short, started, make_tokens, assert_memories_equal
    ):
        tokens = make_tokens(3, 7)
        rows, _ = generate(short, tokens, started, **LANES)
        end = rows[1].index(rows[1][4]) + 1
        stops = {**LANES, "stop_token": np.array([-1, rows[1][4], -1], "int32")}
        counts = {**LANES, "max_new_tokens": np.array([17, end, 0], "int32")}
        _, stopped = generate(short, tokens, started, **stops)
        _, counted = generate(short, tokens, started, **counts)
        assert_memories_equal(stopped, counted)

    def test_the_order_of_lanes_does_not_matter(
        self, short, started, make_tokens, assert_memories_equal
    ):
        tokens, order = make_tokens(3, 7), [2, 0, 1]
        rows, memories = generate(short, tokens, started, **LANES)
        permuted, other = generate(
            short,
            tokens[order],
            {name: value[order] for name, value in started.items()},
            **{name: value[order] for name, value in LANES.items()},
        )
        assert permuted == [rows[i] for i in order]
        assert_memories_equal(
            other,
            {name: value[order] for name, value in memories.items()},
            atol=1e-5,
        )

    @pytest.mark.parametrize("seed", [6, -5, 5 + 2**32, 5 - 2**63])
    def test_seeds_matter_in_both_halves(
        self, short, started, make_tokens, seed
    ):
        tokens = make_tokens(3, 7)
        drawn = [
            generate(
                short,
                tokens,
                started,
                **{
                    **LANES,
                    "temperature": np.full(3, 3, "float32"),
                    "seed": np.full(3, value, "int64"),
                },
            )[0]
            for value in (5, 5, seed)
        ]
        assert drawn[0] == drawn[1]
        assert drawn[0][0] != drawn[2][0]
        assert drawn[0][1] != drawn[2][1]


class TestCuts:
    @pytest.mark.parametrize(
        "cuts", [(29,), (1,) * 29, (5, 1, 23), (13, 16), (0, 29)], ids=str
    )
    def test_a_generation_may_be_cut_into_calls(
        self, short, started, make_tokens, assert_memories_equal, cuts
    ):
        # Given a generation by one call,
        tokens = make_tokens(3, 7)
        lanes = {**LANES, "max_new_tokens": np.full(3, 29, "int32")}
        expected, final = generate(short, tokens, started, **lanes)
        # when each call goes on from the memories and the last tokens of the
        # call before,
        rows, memories = [[], [], []], started
        for count in cuts:
            if count == 0:  # Reads all of the prompt but its last token.
                feed, tokens = tokens[:, :-1], tokens[:, -1:]
            else:
                feed = tokens
            counts = np.full(3, count, "int32")
            written, memories = generate(
                short, feed, memories, **{**LANES, "max_new_tokens": counts}
            )
            rows = [old + new for old, new in zip(rows, written, strict=True)]
            if count:
                tokens = np.array([row[-1:] for row in rows], "int32")
        # then tokens and memories are the same.
        assert rows == expected
        assert_memories_equal(memories, final, atol=1e-5)

    @pytest.mark.parametrize("cuts", [(1,) * 13, (5, 8), (11, 2)], ids=str)
    def test_a_prompt_may_be_cut_into_calls(
        self, short, started, make_tokens, assert_memories_equal, cuts
    ):
        tokens = make_tokens(3, 13)
        expected, final = generate(short, tokens, started, **LANES)
        nothing = {**LANES, "max_new_tokens": np.zeros(3, "int32")}
        memories, read = started, 0
        for length in cuts[:-1]:
            feed = tokens[:, read : read + length]
            _, memories = generate(short, feed, memories, **nothing)
            read += length
        rows, memories = generate(short, tokens[:, read:], memories, **LANES)
        assert rows == expected
        assert_memories_equal(memories, final, atol=1e-5)


def test_everything_stays_finite(short, make_tokens):
    # Also past the point where all memories are full, and at the last
    # position that there is.
    memories = {
        name: np.array(value)
        for name, value in short.model.initial_memories(3).items()
    }
    memories["position"] = np.array([0, 5, 2**31 - 3], "int32")
    lanes = {
        **LANES,
        "max_new_tokens": np.full(3, 61, "int32"),
        "temperature": np.array([1e-30, 1, 1e30], "float32"),
    }
    rows, memories = generate(short, make_tokens(3, 7), memories, **lanes)
    assert [len(row) for row in rows] == [61, 61, 61]
    assert all(0 <= token < 23 for row in rows for token in row)
    assert memories["position"].tolist() == [67, 72, 2**31 - 1]
    for value in memories.values():
        assert np.all(np.isfinite(value))
