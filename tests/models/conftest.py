"""Small models with weights that make every part of them matter."""

import numpy as np
import pytest

import official_lrm as lrm

# V, D, N, H, F; tests add B = 2 lanes and segments of T = 7.
SIZES = {
    "vocab_size": 19,
    "hidden_size": 14,
    "num_heads": 3,
    "head_size": 5,
    "inner_size": 17,
}


@pytest.fixture
def sizes():
    return dict(SIZES)


@pytest.fixture
def make_model():
    def make(spans=(5, 0, 11), weights_seed=2, **kwargs):
        model = lrm.TransformerXLLanguageModel(spans=spans, **SIZES, **kwargs)
        # Initial weights are so small that attention is nearly uniform and
        # would hide what a test looks for.
        rng = np.random.default_rng(weights_seed)
        for weight in model.weights:
            value = rng.normal(size=weight.shape) * 0.4
            weight.assign(value + (weight.name == "gamma"))
        return model

    return make


@pytest.fixture
def make_tokens():
    def make(batch_size, length, seed=3):
        rng = np.random.default_rng(seed)
        shape = (batch_size, length)
        return rng.integers(0, SIZES["vocab_size"], shape, dtype="int32")

    return make


@pytest.fixture
def run_segments():
    """Runs a text cut into segments of the given lengths."""

    def run(model, tokens, lengths, memories=None):
        assert sum(lengths) == tokens.shape[1]
        logits, start = [], 0
        for length in lengths:
            segment = tokens[:, start : start + length]
            output, memories = model(segment, memories)
            logits.append(np.array(output))
            start += length
        return np.concatenate(logits, axis=1), memories

    return run
