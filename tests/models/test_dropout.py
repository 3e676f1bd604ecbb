"""Tests of dropout in the model: seeds, rates and sites."""

import numpy as np
import pytest
import tensorflow as tf

SEED = np.array([17, 5], "int32")
DROPOUT = {"dropout": 0.3, "attention_dropout": 0.2}


class TestDropout:
    def test_the_same_seed_repeats(self, make_model, make_tokens):
        model, tokens = make_model(**DROPOUT), make_tokens(2, 7)
        first, memories = model(tokens, training=True, seed=SEED)
        model(tokens, training=True)  # Whatever is drawn in between.
        second, again = model(tokens, training=True, seed=SEED)
        np.testing.assert_array_equal(first, second)
        for name in memories:
            np.testing.assert_array_equal(memories[name], again[name])

    def test_another_seed_differs(self, make_model, make_tokens):
        model, tokens = make_model(**DROPOUT), make_tokens(2, 7)
        logits = [
            np.array(model(tokens, training=True, seed=np.array(seed))[0])
            for seed in ([17, 5], [17, 6], [18, 5])
        ]
        for i in range(3):
            assert np.max(np.abs(logits[i] - logits[i - 1])) > 1e-2

    def test_there_is_none_outside_training(self, make_model, make_tokens):
        tokens = make_tokens(2, 7)
        expected = make_model()(tokens)[0]
        model = make_model(**DROPOUT)
        for options in ({}, {"training": False}, {"seed": SEED}):
            logits, _ = model(tokens, **options)
            np.testing.assert_array_equal(logits, expected)
        trained, _ = model(tokens, training=True, seed=SEED)
        assert np.max(np.abs(trained - expected)) > 1e-2

    def test_without_a_seed_every_call_draws_anew(
        self, make_model, make_tokens
    ):
        model, tokens = make_model(**DROPOUT), make_tokens(2, 7)

        @tf.function
        def call(tokens):
            return model(tokens, training=True)[0]

        for function in (lambda x: model(x, training=True)[0], call):
            first, second = function(tokens), function(tokens)
            assert np.max(np.abs(first - second)) > 1e-2

    @pytest.mark.parametrize("rate", ["dropout", "attention_dropout"])
    def test_each_rate_acts_alone(self, make_model, make_tokens, rate):
        tokens = make_tokens(2, 7)
        expected = make_model()(tokens)[0]
        model = make_model(**{rate: 0.3})
        logits, _ = model(tokens, training=True, seed=SEED)
        assert np.max(np.abs(logits - expected)) > 1e-2

    def test_no_two_sites_share_a_mask(
        self, make_model, make_tokens, monkeypatch
    ):
        # Given a record of where dropout acts, and at which rate,
        sites = []

        def record(inputs, rate, seed, site):
            sites.append((site, rate))
            return inputs

        for module in (
            "layers.attend",
            "layers.relu_dropout",
            "layers.transformer_xl_block",
            "models.transformer_xl",
        ):
            monkeypatch.setattr(
                f"official_lrm.{module}.stateless_dropout", record
            )
        make_model(**DROPOUT)(make_tokens(2, 7), training=True, seed=SEED)
        # then it is at the embedding, the position table, the final hidden
        # state, and four times a layer, each a site of its own.
        assert len(sites) == len({site for site, _ in sites}) == 3 + 4 * 3
        rates = [rate for _, rate in sites]
        assert rates.count(0.2) == 3
        assert rates.count(0.3) == 3 + 3 * 3

    def test_the_first_memory_holds_the_embedding_after_dropout(
        self, make_model, make_tokens
    ):
        model = make_model((7, 3), dropout=0.3)
        _, memories = model(make_tokens(2, 7), training=True, seed=SEED)
        dropped = np.mean(np.array(memories["memory_00"]) == 0)
        # 196 elements: three standard deviations are 0.1.
        assert 0.2 < dropped < 0.4
