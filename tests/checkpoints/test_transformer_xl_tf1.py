"""Checkpoints under the names of the TensorFlow reference."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import logging

import official_lrm as lrm
from official_lrm.checkpoints.transformer_xl_tf1 import (
    convert_transformer_xl_tf1,
)
from official_lrm.layers import attention_mask


def names_of_the_reference(file):
    """A Hugging Face state dict as the reference would have saved it.

    Written from the reference's variable names, not from the converter.
    """
    config, get = file.config, file.state_dict.__getitem__
    layers = range(config["n_layer"])
    cutoffs, div_value = config["cutoffs"], config["div_val"]
    variables = {}
    for name in ("r_w_bias", "r_r_bias"):
        key = f"transformer.layers.{{}}.dec_attn.{name}"
        biases = np.stack([get(key.format(layer)) for layer in layers])
        variables[name] = biases if config["untie_r"] else biases[0]
    for layer in layers:
        ours = f"layer_{layer}/"
        theirs = f"transformer.layers.{layer}."
        for a, b in (("qkv", "qkv_net"), ("r", "r_net"), ("o", "o_net")):
            variables[f"{ours}rel_attn/{a}/kernel"] = get(
                f"{theirs}dec_attn.{b}.weight"
            ).T
        for index, number in ((1, 0), (2, 3)):
            dense = f"{theirs}pos_ff.CoreNet.{number}."
            folder = f"{ours}ff/layer_{index}/"
            variables[folder + "kernel"] = get(dense + "weight").T
            variables[folder + "bias"] = get(dense + "bias")
        for a, b in (("rel_attn", "dec_attn"), ("ff", "pos_ff")):
            norm = f"{theirs}{b}.layer_norm."
            variables[f"{ours}{a}/LayerNorm/gamma"] = get(norm + "weight")
            variables[f"{ours}{a}/LayerNorm/beta"] = get(norm + "bias")
    embedding, softmax = "transformer.word_emb.", "crit.out_"
    ends = [0, *cutoffs, config["vocab_size"]]
    for index in range(len(ends) - 1):
        cutoff = f"cutoff_{index}/" if div_value > 1 else ""
        if not index or div_value > 1:
            variables[f"adaptive_embed/{cutoff}lookup_table"] = get(
                f"{embedding}emb_layers.{index}.weight"
            )
            if f"{embedding}emb_projs.{index}" in file.state_dict:
                variables[f"adaptive_embed/{cutoff}proj_W"] = get(
                    f"{embedding}emb_projs.{index}"
                ).T
        folder = f"adaptive_softmax/cutoff_{index}/"
        if cutoffs and div_value > 1:
            variables[folder + "b"] = get(f"{softmax}layers.{index}.bias")
        elif cutoffs:
            bias = get(f"{softmax}layers.0.bias")
            variables[folder + "b"] = bias[ends[index] : ends[index + 1]]
        shared = index and config["proj_share_all_but_first"]
        key = f"{softmax}projs.{index}"
        if cutoffs and not shared and key in file.state_dict:
            variables[folder + "proj"] = get(key).T
    if cutoffs:
        folder = "adaptive_softmax/cutoff_0/"
        variables[folder + "cluster_W"] = get("crit.cluster_weight")
        variables[folder + "cluster_b"] = get("crit.cluster_bias")
    else:
        variables["adaptive_softmax/bias"] = get(f"{softmax}layers.0.bias")
    return {f"transformer/{name}": value for name, value in variables.items()}


def save(path, variables):
    """Writes variables as tf.compat.v1.train.Saver does; returns the prefix."""
    prefix = str(path / "model.ckpt-7")
    names = list(variables)
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(variables[name]) for name in names],
    )
    return prefix


def refusal(prefix, config, error_type=ValueError):
    with pytest.raises(error_type) as caught:
        lrm.checkpoints.from_transformer_xl_tf1(prefix, config)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "name",
    [
        "transfo_xl_char",
        "transfo_xl_word",
        "hf_three_tails",
        "hf_div1_cutoffs",
        "hf_div1_projected",
        "hf_untied",
    ],
)
def test_the_weights_of_hugging_face(golden, tmp_path, name):
    file = golden(name)
    expected = lrm.checkpoints.from_transfo_xl(file.state_dict, file.config)
    prefix = save(tmp_path, names_of_the_reference(file))
    config = {**file.config, "n_token": file.config["vocab_size"]}
    del config["vocab_size"], config["tie_word_embeddings"]
    model = lrm.checkpoints.from_transformer_xl_tf1(prefix, config)
    for weight, other in zip(model.weights, expected.weights, strict=True):
        assert weight.path == other.path
        np.testing.assert_array_equal(weight, other, err_msg=weight.path)
    assert model.get_config()["spans"] == expected.get_config()["spans"]


def test_projections_that_are_not_shared(golden, tmp_path):
    file = golden("hf_three_tails")
    file.config["proj_share_all_but_first"] = False
    file.config.pop("tie_projs", None)
    # Shared in the file: make them differ.
    for index in (1, 2, 3):
        key = f"crit.out_projs.{index}"
        file.state_dict[key] = file.state_dict[key] * 2
    expected = lrm.checkpoints.from_transfo_xl(file.state_dict, file.config)
    prefix = save(tmp_path, names_of_the_reference(file))
    # False is the default of the reference's flag.
    del file.config["proj_share_all_but_first"]
    model = lrm.checkpoints.from_transformer_xl_tf1(prefix, file.config)
    for weight, other in zip(model.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(weight, other, err_msg=weight.path)


def test_without_cutoffs_the_projection_is_the_embeddings(golden, tmp_path):
    # Unlike in PyTorch, and whatever proj_share_all_but_first says.
    file = golden("hf_projected_dense")
    prefix = save(tmp_path, names_of_the_reference(file))
    model = lrm.checkpoints.from_transformer_xl_tf1(prefix, file.config)
    (projection,) = model.softmax.projections
    np.testing.assert_array_equal(
        projection, file.state_dict["transformer.word_emb.emb_projs.0"].T
    )


def test_a_cluster_as_wide_as_the_model_without_projection(golden, tmp_path):
    # proj_same_dim=False: as if projected by the identity.
    file = golden("transfo_xl_word")
    assert file.config["d_embed"] == file.config["d_model"]
    for key in ("transformer.word_emb.emb_projs.0", "crit.out_projs.0"):
        file.state_dict[key] = np.eye(24, dtype="float32")
    expected = lrm.checkpoints.from_transfo_xl(file.state_dict, file.config)
    variables = names_of_the_reference(file)
    del variables["transformer/adaptive_embed/cutoff_0/proj_W"]
    del variables["transformer/adaptive_softmax/cutoff_0/proj"]
    prefix = save(tmp_path, variables)
    assert "proj" in refusal(prefix, file.config)
    config = {**file.config, "proj_same_dim": False}
    model = lrm.checkpoints.from_transformer_xl_tf1(prefix, config)
    for weight, other in zip(model.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(weight, other, err_msg=weight.path)


class TestSameLength:
    def test_one_more_slot_gives_the_references_window(self):
        # The reference masks its first T columns strictly below the diagonal:
        # distances up to M are visible. Here they are those below the span.
        span, length = 4, 3
        queries, keys = np.indices([length, span + 1 + length])
        distances = queries + span + 1 - keys
        visible = attention_mask(
            np.zeros([1], "int32"), span + 1, length, True, True
        )
        np.testing.assert_array_equal(
            visible[0], (distances >= 0) & (distances <= span)
        )

    def test_the_converter_says_so(self, golden, tmp_path, monkeypatch):
        warned = []
        monkeypatch.setattr(
            logging, "warning", lambda text, *_: warned.append(text)
        )
        file = golden("hf_untied")
        assert file.config["same_length"]
        prefix = save(tmp_path, names_of_the_reference(file))
        lrm.checkpoints.from_transformer_xl_tf1(prefix, file.config)
        (text,) = warned
        assert "one key more" in text
        warned.clear()
        lrm.checkpoints.from_transformer_xl_tf1(
            prefix, file.config, spans=(5, 5, 5)
        )
        assert not warned


class TestEveryVariable:
    def test_is_used_or_skipped(self, golden, tmp_path):
        file = golden("hf_untied")
        variables = names_of_the_reference(file)
        slots = {
            f"{name}/{slot}": value
            for name, value in variables.items()
            for slot in ("Adam", "Adam_1")
        }
        others = {
            "global_step": np.int64(7),
            "beta1_power": np.float32(0.5),
            "beta2_power": np.float32(0.25),
        }
        prefix = save(tmp_path, {**variables, **slots, **others})
        _, uses = convert_transformer_xl_tf1(prefix, file.config)
        assert uses.keys() == {*variables, *slots, *others}
        assert {name for name in uses if uses[name] == "used"} == {*variables}
        for name in (*slots, *others):
            assert uses[name].startswith("skipped: ")

    def test_missing_misshapen_or_too_many_is_named(self, golden, tmp_path):
        file = golden("hf_three_tails")
        variables = names_of_the_reference(file)
        name = "transformer/adaptive_softmax/cutoff_2/b"
        rest = {k: v for k, v in variables.items() if k != name}
        message = refusal(save(tmp_path, rest), file.config)
        assert f"lacks the tensor {name} of shape [12]" in message
        rest[name] = np.zeros([13], "float32")
        message = refusal(save(tmp_path, rest), file.config)
        assert f"{name} of shape [13]; the config calls for [12]" in message
        variables["transformer/new/kernel"] = np.zeros([2], "float32")
        message = refusal(save(tmp_path, variables), file.config)
        assert "has the tensor transformer/new/kernel, which" in message

    def test_untied_softmax_is_refused(self, golden, tmp_path):
        file = golden("hf_untied")
        prefix = save(tmp_path, names_of_the_reference(file))
        config = {**file.config, "tie_weight": False}
        assert "tie_weight must be true" in refusal(prefix, config)


class TestFiles:
    def test_no_checkpoint(self, golden, tmp_path):
        config = golden("hf_untied").config
        prefix = tmp_path / "model.ckpt-7"
        message = refusal(prefix, config, FileNotFoundError)
        assert f"{prefix}.index" in message

    @pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
    def test_a_truncated_file(self, golden, tmp_path, part):
        file = golden("hf_untied")
        prefix = save(tmp_path, names_of_the_reference(file))
        path = tmp_path / f"model.ckpt-7.{part}"
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        assert f"checkpoint {prefix} cannot be read" in refusal(
            prefix, file.config
        )

    def test_the_data_are_missing(self, golden, tmp_path):
        file = golden("hf_untied")
        prefix = save(tmp_path, names_of_the_reference(file))
        (tmp_path / "model.ckpt-7.data-00000-of-00001").unlink()
        assert f"checkpoint {prefix} cannot be read" in refusal(
            prefix, file.config
        )


def test_the_default_epsilon_is_the_references(golden, tmp_path):
    file = golden("transfo_xl_char")
    prefix = save(tmp_path, names_of_the_reference(file))
    del file.config["layer_norm_epsilon"]
    model = lrm.checkpoints.from_transformer_xl_tf1(prefix, file.config)
    assert model.get_config()["layer_norm_epsilon"] == 1e-12
    logits, _ = model(file.arrays["ids"][:, :7])
    np.testing.assert_allclose(
        keras.ops.log_softmax(logits), file.arrays["log_probs_0"], atol=1e-4
    )
