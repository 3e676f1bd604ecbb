"""Tests of drawing tokens: frequencies, filters, and the noise itself."""

import numpy as np
import pytest
from keras import ops

from official_lrm.models.sampling import gumbel_noise, sample_tokens

DRAWS = 20011

# Probabilities of V = 7 tokens, not in order; by rank: .4 .25 .15 .1 .05 ...
PROBABILITIES = np.array([0.05, 0.25, 0.03, 0.4, 0.1, 0.02, 0.15])
RANKED = np.array([3, 1, 6, 4, 0, 2, 5])

# The statistics below are of a deterministic function: no flakiness. Bounds
# are at about 1e-5 of the chi-square distribution.
CHI_SQUARE_BOUND = {6: 34, 63: 126, 255: 366}


def seed_words(seeds):
    """[B] 64-bit seeds as [B, 2] uint32, as `generate` passes them."""
    return np.array(seeds, "int64").view("uint32").reshape(-1, 2)


def draw(logits, temperature=1.0, top_k=0, top_p=1.0, seed=0, position=None):
    """Draws with settings of one number or one per lane."""
    position = np.arange(DRAWS) if position is None else np.array(position)
    lanes = len(position)
    drawn = sample_tokens(
        np.broadcast_to(np.array(logits, "float32"), [lanes, len(logits)])
        if np.ndim(logits) == 1
        else np.array(logits, "float32"),
        np.broadcast_to(np.float32(temperature), lanes),
        np.broadcast_to(np.int32(top_k), lanes),
        np.broadcast_to(np.float32(top_p), lanes),
        seed_words(np.broadcast_to(seed, lanes)),
        position.astype("int32"),
    )
    drawn = ops.convert_to_numpy(drawn)
    assert drawn.dtype == "int32"
    return drawn


def noise(seeds, positions, tokens):
    """[B, V] noise of each seed and position."""
    tokens = np.broadcast_to(
        np.array(tokens, "int32"), [len(seeds), len(tokens)]
    )
    return ops.convert_to_numpy(
        gumbel_noise(
            seed_words(seeds), np.array(positions, "int32"), tokens.copy()
        )
    )


def chi_square(counts, probabilities):
    expected = np.sum(counts) * probabilities
    return np.sum((counts - expected) ** 2 / expected)


def assert_frequencies(drawn, probabilities):
    counts = np.bincount(drawn, minlength=len(probabilities))
    assert not counts[probabilities == 0].any()
    held = probabilities > 0
    statistic = chi_square(counts[held], probabilities[held])
    assert statistic < CHI_SQUARE_BOUND[6]


def softmax(logits):
    exponentials = np.exp(logits - np.max(logits))
    return exponentials / exponentials.sum()


class TestFrequencies:
    @pytest.mark.parametrize("seed", [0, 5, -3, 2**62])
    def test_they_are_the_softmax(self, seed):
        drawn = draw(np.log(PROBABILITIES) + 3, seed=seed)
        assert_frequencies(drawn, PROBABILITIES)

    @pytest.mark.parametrize("temperature", [0.5, 2.0])
    def test_temperature_divides_the_logits(self, temperature):
        logits = np.log(PROBABILITIES)
        drawn = draw(logits, temperature)
        assert_frequencies(drawn, softmax(logits / temperature))

    def test_top_k_keeps_the_likeliest(self):
        expected = np.where(np.isin(range(7), RANKED[:3]), PROBABILITIES, 0)
        drawn = draw(np.log(PROBABILITIES), top_k=3)
        assert_frequencies(drawn, expected / 0.8)

    @pytest.mark.parametrize(
        ("top_p", "kept"), [(0.39, 1), (0.41, 2), (0.64, 2), (0.66, 3)]
    )
    def test_top_p_keeps_the_fewest_that_hold_it(self, top_p, kept):
        expected = np.where(np.isin(range(7), RANKED[:kept]), PROBABILITIES, 0)
        drawn = draw(np.log(PROBABILITIES), top_p=top_p)
        assert_frequencies(drawn, expected / expected.sum())

    def test_top_p_is_of_what_top_k_left(self):
        # Of the first 3, the first 2 hold .65 / .8 = .81; of all they hold .65
        # only, so that top_p alone would keep 3.
        expected = np.where(np.isin(range(7), RANKED[:2]), PROBABILITIES, 0)
        logits = np.log(PROBABILITIES)
        assert_frequencies(
            draw(logits, top_k=3, top_p=0.8), expected / expected.sum()
        )
        assert set(draw(logits, top_p=0.8)) == set(RANKED[:3])

    def test_filters_come_after_the_temperature(self):
        # At temperature 3 the distribution is so flat that .5 takes 3 tokens.
        logits = np.log(PROBABILITIES)
        assert set(draw(logits, 1.0, top_p=0.5)) == set(RANKED[:2])
        assert set(draw(logits, 3.0, top_p=0.5)) == set(RANKED[:3])

    def test_equal_logits_are_drawn_equally(self):
        assert_frequencies(draw(np.full(7, -2.0)), np.full(7, 1 / 7))

    def test_log_probabilities_serve_as_well_as_logits(self):
        logits = np.log(PROBABILITIES)
        np.testing.assert_array_equal(draw(logits), draw(logits - 5))


class TestLimits:
    def test_temperature_zero_is_greedy(self):
        rng = np.random.default_rng(3)
        logits = rng.normal(size=(101, 7))
        drawn = draw(logits, 0, position=range(101))
        np.testing.assert_array_equal(drawn, logits.argmax(axis=1))

    def test_greedy_ties_go_to_the_first_token(self):
        assert set(draw([1, 4, 2, 4, 4, 0, 1], 0)) == {1}

    def test_top_k_ties_keep_the_first_tokens(self):
        assert set(draw([1, 4, 2, 4, 4, 0, 1], top_k=2)) == {1, 3}

    def test_greedy_is_greedy_whatever_the_filters(self):
        logits = np.log(PROBABILITIES)
        assert set(draw(logits, 0, top_k=5, top_p=0.9)) == {3}

    @pytest.mark.parametrize(
        "settings",
        [{"top_k": 1}, {"top_p": 1e-6}, {"top_k": 2, "top_p": 0.01}],
        ids=str,
    )
    def test_the_likeliest_token_is_always_kept(self, settings):
        assert set(draw(np.log(PROBABILITIES), **settings)) == {3}

    @pytest.mark.parametrize("top_k", [7, 11, 2**31 - 1])
    def test_top_k_beyond_the_vocabulary_keeps_all(self, top_k):
        logits = np.log(PROBABILITIES)
        np.testing.assert_array_equal(draw(logits, top_k=top_k), draw(logits))

    def test_top_p_one_keeps_all(self):
        # A sum of 4001 float32 probabilities reaches 1 too early, or never.
        rng = np.random.default_rng(5)
        logits = rng.normal(size=4001).astype("float32") * 3
        positions = np.arange(499)
        drawn = draw(logits, position=positions)
        noisy = logits + noise([0] * 499, positions, range(4001))
        np.testing.assert_array_equal(drawn, noisy.argmax(axis=1))

    @pytest.mark.parametrize(
        "temperature", [1e-6, 1e-20, 1e-30, 1e-37, 1e-41, 1e-45]
    )
    @pytest.mark.parametrize(
        "settings", [{}, {"top_k": 2}, {"top_p": 0.5}], ids=str
    )
    def test_a_tiny_temperature_is_greedy(self, temperature, settings):
        # Divided by it, logits overflow to one and the same infinity.
        for logits in ([-300, -200, -100, -250], [3, 2, 50, 1], [0, 0, 2, 0]):
            drawn = draw(logits, temperature, position=range(11), **settings)
            assert set(drawn) == {2}

    def test_a_huge_temperature_draws_equally_from_what_is_kept(self):
        drawn = draw(np.log(PROBABILITIES), 1e30)
        assert_frequencies(drawn, np.full(7, 1 / 7))
        drawn = draw(np.log(PROBABILITIES), 1e30, top_k=2)
        assert set(drawn) == set(RANKED[:2])

    def test_impossible_tokens_are_never_drawn(self):
        with np.errstate(divide="ignore"):
            logits = np.log(np.array([0, 0.5, 0, 0.5, 0, 0, 0]))
        assert set(draw(logits)) == {1, 3}
        assert set(draw(logits, 0)) == {1}


def test_lanes_of_one_batch_have_their_own_settings():
    # Given lanes that differ in everything,
    rng = np.random.default_rng(11)
    lanes = 53
    logits = rng.normal(size=(lanes, 7)) * 2
    temperature = rng.choice([0, 0.3, 1, 2.5], lanes)
    top_k = rng.choice([0, 1, 3, 5, 11], lanes)
    top_p = rng.choice([0.2, 0.7, 1], lanes)
    seed = rng.integers(-(2**63), 2**63, lanes)
    position = rng.integers(0, 2**31, lanes)
    # when they are drawn together,
    together = draw(logits, temperature, top_k, top_p, seed, position)
    # then each is as it is alone,
    alone = [
        draw(logits[[i]], temperature[i], top_k[i], top_p[i], seed[i], [p])[0]
        for i, p in enumerate(position)
    ]
    np.testing.assert_array_equal(together, alone)
    # and the settings did matter.
    assert np.any(together != draw(logits, seed=seed, position=position))


class TestNoise:
    def test_it_is_a_function_of_seed_position_and_token(self):
        # Given noise of several lanes, when a lane is computed in another
        # batch with its tokens in another order,
        whole = noise([5, 5, 7], [13, 17, 13], range(11))
        order = np.random.default_rng(2).permutation(11)
        alone = noise([5], [17], order)
        # then it is the same, up to the last bit of the logarithm, which is
        # not the same in and after the vectors of a loop.
        np.testing.assert_allclose(alone[0], whole[1, order], atol=1e-6)
        assert np.ptp(whole, axis=0).min() > 1e-3

    @pytest.mark.parametrize(
        ("seed", "position"),
        [
            (6, 13),
            (-5, 13),
            (5, 14),
            # The halves of the seed: only the upper one differs, and swapped.
            (5 + 2**32, 13),
            (5 + 2**63 - 2**64, 13),
            (5 * 2**32, 13),
        ],
    )
    def test_it_differs_between_seeds_and_positions(self, seed, position):
        first = noise([5], [13], range(997))
        other = noise([seed], [position], range(997))
        # Independent noise of 23 bits has few equal values, if any.
        assert np.mean(first == other) < 0.01
        assert abs(np.corrcoef(first[0], other[0])[0, 1]) < 0.15

    def test_seed_and_position_are_not_just_added(self):
        first = noise([5], [13], range(997))
        assert np.mean(first == noise([13], [5], range(997))) < 0.01
        assert np.mean(first == noise([4], [14], range(997))) < 0.01

    @pytest.mark.parametrize("varied", ["token", "position", "seed", "upper"])
    def test_it_is_uniform_before_it_is_gumbel(self, varied):
        # Given 65536 values along one argument,
        many, zeros = np.arange(2**16), np.zeros(2**16, "int64")
        values = {
            "token": lambda: noise([3], [5], many)[0],
            "position": lambda: noise(zeros + 3, many, [7])[:, 0],
            "seed": lambda: noise(many, zeros + 5, [7])[:, 0],
            "upper": lambda: noise(many << 32, zeros + 5, [7])[:, 0],
        }[varied]()
        # when the Gumbel distribution is undone, then 256 bins are filled
        # evenly,
        uniform = np.exp(-np.exp(-values.astype("float64")))
        bins = np.floor(uniform * 256).astype(int)
        counts = np.bincount(bins, minlength=256)
        assert chi_square(counts, np.full(256, 1 / 256)) < CHI_SQUARE_BOUND[255]
        # and so are the 64 pairs of neighbours.
        pairs = bins[:-1] // 32 * 8 + bins[1:] // 32
        counts = np.bincount(pairs, minlength=64)
        assert chi_square(counts, np.full(64, 1 / 64)) < CHI_SQUARE_BOUND[63]

    def test_it_is_finite_everywhere(self):
        edges = [0, 1, -1, 2**31, 2**63 - 1, -(2**63)]
        for position in (0, 1, 2**31 - 1):
            values = noise(edges, [position] * len(edges), range(50021))
            assert np.all(np.isfinite(values))
            # -log(-log u) of 23 bits and a half.
            assert -2.9 < values.min() < values.max() < 16.7
