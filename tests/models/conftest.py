"""Small models with weights that make every part of them matter."""

import json
import pathlib

import numpy as np
import pytest

import official_lrm as lrm

TESTDATA = pathlib.Path(__file__).parents[1] / "testdata"

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


def load_golden(name, attend_to_empty):
    """A model with the weights of a golden file, and the file's arrays."""
    with np.load(TESTDATA / f"{name}.npz", allow_pickle=False) as file:
        golden = dict(file)
    config = json.loads(str(golden["config"]))
    num_heads, head_size = config["n_head"], config["d_head"]
    hidden_size = config["d_model"]
    model = lrm.TransformerXLLanguageModel(
        vocab_size=config["vocab_size"],
        spans=[config["mem_len"]] * config["n_layer"],
        hidden_size=hidden_size,
        num_heads=num_heads,
        head_size=head_size,
        inner_size=config["d_inner"],
        layer_norm_epsilon=config["layer_norm_epsilon"],
        attend_to_empty=attend_to_empty,
    )
    parameters = {
        key.removeprefix("param:").removeprefix("transformer."): value
        for key, value in golden.items()
        if key.startswith("param:")
    }
    taken = set()

    def get(key):
        taken.add(key)
        return parameters[key]

    def to_heads(weight):  # [N * H, D] -> [D, N, H]
        return weight.T.reshape(hidden_size, num_heads, head_size)

    backbone = model.backbone
    backbone.content_bias.assign(get("r_w_bias"))
    backbone.position_bias.assign(get("r_r_bias"))
    backbone.embedding.table.assign(get("word_emb.emb_layers.0.weight"))
    model.softmax.bias.assign(get("crit.out_layers.0.bias"))
    # What is shared has several names: the softmax's kernel is the table, and
    # the biases of all layers are one pair.
    for key in parameters:
        *_, name = key.split(".")
        if name in ("r_w_bias", "r_r_bias"):
            np.testing.assert_array_equal(get(key), get(name))
    np.testing.assert_array_equal(
        get("crit.out_layers.0.weight"), backbone.embedding.table
    )
    for i, block in enumerate(backbone.blocks):
        attention, ahead = block.attention, f"layers.{i}.dec_attn."
        query, key, value = np.split(get(ahead + "qkv_net.weight"), 3)
        attention.query_kernel.assign(to_heads(query))
        attention.key_kernel.assign(to_heads(key))
        attention.value_kernel.assign(to_heads(value))
        attention.position_kernel.assign(to_heads(get(ahead + "r_net.weight")))
        attention.output_kernel.assign(
            get(ahead + "o_net.weight").T.reshape(
                num_heads, head_size, hidden_size
            )
        )
        block.attention_norm.gamma.assign(get(ahead + "layer_norm.weight"))
        block.attention_norm.beta.assign(get(ahead + "layer_norm.bias"))
        ahead = f"layers.{i}.pos_ff."
        for dense, index in ((block.inner, 0), (block.outer, 3)):
            dense.kernel.assign(get(f"{ahead}CoreNet.{index}.weight").T)
            dense.bias.assign(get(f"{ahead}CoreNet.{index}.bias"))
        block.feed_forward_norm.gamma.assign(get(ahead + "layer_norm.weight"))
        block.feed_forward_norm.beta.assign(get(ahead + "layer_norm.bias"))
    not_taken = parameters.keys() - taken
    assert not_taken <= {"pos_emb.inv_freq"}, not_taken
    return model, golden


@pytest.fixture(scope="session")
def transfo_xl_char():
    """Attends to empty memory; segments of 7."""
    return load_golden("transfo_xl_char", attend_to_empty=True)


@pytest.fixture(scope="session")
def mem_transformer_growing():
    """Starts from no memory; segments of 5, and targets."""
    return load_golden("mem_transformer_growing", attend_to_empty=False)
