"""Every tensor of a state dict is accounted for, both ways."""

import keras
import ml_dtypes
import numpy as np
import pytest

import official_lrm as lrm
from official_lrm.checkpoints.transfo_xl import convert_transfo_xl

FILES = (
    "transfo_xl_char",
    "transfo_xl_word",
    "hf_three_tails",
    "hf_div1_cutoffs",
    "hf_div1_projected",
    "hf_unshared",
    "hf_projected_dense",
    "hf_untied",
)
FREQUENCIES = "transformer.pos_emb.inv_freq"

from_transfo_xl = lrm.checkpoints.from_transfo_xl


def refusal(state_dict, config, **kwargs):
    """The one line that a conversion is refused with."""
    with pytest.raises(ValueError) as caught:
        from_transfo_xl(state_dict, config, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def assert_same_weights(model, other):
    assert len(model.weights) == len(other.weights)
    for weight, expected in zip(model.weights, other.weights, strict=True):
        assert weight.path == expected.path
        np.testing.assert_array_equal(weight, expected)


class TestRoundTrip:
    @pytest.mark.parametrize("name", FILES)
    def test_a_state_dict_comes_back_bit_for_bit(self, golden, name):
        file = golden(name)
        model = from_transfo_xl(file.state_dict, file.config)
        state_dict, config = lrm.checkpoints.to_transfo_xl(model)
        assert state_dict.keys() == file.state_dict.keys()
        for key, value in file.state_dict.items():
            assert state_dict[key].dtype == value.dtype
            np.testing.assert_array_equal(state_dict[key], value, err_msg=key)
        for field, value in file.config.items():
            assert config[field] == value, field

    @pytest.mark.parametrize(
        "arguments",
        [
            {},
            {"untie_biases": True, "clamp_length": 5, "same_length": True},
            {"cutoffs": (3, 8, 13), "div_value": 2, "embedding_size": 16},
            {"cutoffs": (4,), "embedding_size": 9, "share_projections": False},
            {"cutoffs": (4, 9), "tie_embeddings": False, "dropout": 0.25},
        ],
    )
    def test_a_model_comes_back_bit_for_bit(self, arguments):
        model = lrm.TransformerXLLanguageModel(
            19, (5, 5), 14, 3, 5, 17, attend_to_empty=True, **arguments
        )
        rng = np.random.default_rng(2)
        for weight in model.weights:
            weight.assign(rng.normal(size=weight.shape))
        state_dict, config = lrm.checkpoints.to_transfo_xl(model)
        back = from_transfo_xl(state_dict, config)
        assert_same_weights(back, model)
        ours, theirs = back.get_config(), model.get_config()
        assert {**ours, "name": None} == {**theirs, "name": None}

    def test_uneven_spans_become_the_longest(self):
        model = lrm.TransformerXLLanguageModel(19, (5, 0, 11), 14, 3, 5, 17)
        _, config = lrm.checkpoints.to_transfo_xl(model)
        assert config["mem_len"] == 11

    def test_what_comes_out_is_no_view_of_the_model(self, golden):
        file = golden("hf_untied")
        model = from_transfo_xl(file.state_dict, file.config)
        state_dict, _ = lrm.checkpoints.to_transfo_xl(model)
        before = model.get_weights()
        for value in state_dict.values():
            value[...] = 7
        for value, expected in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(value, expected)


class TestEveryTensor:
    @pytest.mark.parametrize(
        "name", [*FILES, "mem_transformer_growing", "pt_three_tails"]
    )
    def test_is_used_once_or_an_alias_or_skipped(self, golden, name):
        file = golden(name)
        model, uses = convert_transfo_xl(file.state_dict, file.config)
        assert list(uses) == list(file.state_dict)
        skipped = [key for key, use in uses.items() if use.startswith("skip")]
        assert [key.split(".")[-1] for key in skipped] == ["inv_freq"]
        used = [
            value.size
            for key, value in file.state_dict.items()
            if uses[key] == "used"
        ]
        # Used once each: nothing is left of the model.
        assert sum(used) == model.count_params()
        for key, use in uses.items():
            if use.startswith("the same as "):
                first = use.removeprefix("the same as ")
                np.testing.assert_array_equal(
                    file.state_dict[key], file.state_dict[first]
                )

    def test_one_missing_is_named(self, golden):
        file = golden("hf_three_tails")
        _, uses = convert_transfo_xl(file.state_dict, file.config)
        aliased = {use.removeprefix("the same as ") for use in uses.values()}
        for key, use in uses.items():
            if "transformer.layers.0" in key or "transformer.layers.2" in key:
                continue  # As the others; each costs a model.
            state_dict = dict(file.state_dict)
            del state_dict[key]
            if use != "used" or key in aliased:
                # Another name holds it, or it is not needed.
                from_transfo_xl(state_dict, file.config)
                continue
            message = refusal(state_dict, file.config)
            assert f"lacks the tensor {key}" in message
            assert str(list(file.state_dict[key].shape)) in message

    def test_one_misshapen_is_named(self, golden):
        file = golden("hf_div1_projected")
        for key, value in file.state_dict.items():
            if "transformer.layers.0" in key:
                continue
            state_dict = {**file.state_dict, key: value[..., :-1]}
            message = refusal(state_dict, file.config)
            assert f"has {key} of shape {list(value[..., :-1].shape)}" in (
                message
            )
            assert f"calls for {list(value.shape)}" in message

    def test_one_too_many_is_named(self, golden):
        file = golden("hf_untied")
        file.state_dict["transformer.layers.3.dec_attn.o_net.weight"] = (
            np.zeros([12, 10], "float32")
        )
        file.state_dict["lm_head.weight"] = np.zeros([2], "float32")
        message = refusal(file.state_dict, file.config)
        assert "transformer.layers.3.dec_attn.o_net.weight and 1 more" in (
            message
        )
        assert "no place for" in message

    @pytest.mark.parametrize(
        ("name", "alias"),
        [
            ("transfo_xl_char", "crit.out_layers.0.weight"),
            ("transfo_xl_char", "transformer.layers.2.dec_attn.r_r_bias"),
            ("hf_three_tails", "crit.out_layers.2.weight"),
            ("hf_three_tails", "crit.out_projs.3"),
            ("hf_div1_projected", "crit.out_projs.2"),
        ],
    )
    def test_an_alias_that_differs_is_named(self, golden, name, alias):
        file = golden(name)
        value = file.state_dict[alias].copy()
        value[-1, -1] += 1e-6
        file.state_dict[alias] = value
        message = refusal(file.state_dict, file.config)
        assert alias in message
        assert "different values" in message

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (np.full([31], np.nan, "float32"), "not finite"),
            (np.full([31], np.inf, "float32"), "not finite"),
            (np.zeros([31], "int32"), "dtype int32"),
            (np.array(["x"] * 31), "dtype <U1"),
            (np.array([None] * 31), "dtype object"),
        ],
    )
    def test_values_that_are_no_weights(self, golden, value, expected):
        file = golden("hf_untied")
        file.state_dict["crit.out_layers.0.bias"] = value
        message = refusal(file.state_dict, file.config)
        assert "crit.out_layers.0.bias" in message
        assert expected in message

    def test_other_frequencies_are_refused(self, golden):
        # They would be a model of other positions than ours.
        file = golden("hf_untied")
        file.state_dict[FREQUENCIES] = file.state_dict[FREQUENCIES] * 1.1
        assert FREQUENCIES in refusal(file.state_dict, file.config)

    def test_no_mapping(self, golden):
        config = golden("hf_untied").config
        assert "got str" in refusal("pytorch_model.bin", config)


class TestArguments:
    @pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16])
    def test_half_precision_weights(self, golden, dtype):
        file = golden("hf_unshared")
        half = {
            key: value.astype(dtype) for key, value in file.state_dict.items()
        }
        model = from_transfo_xl(half, file.config)
        expected = from_transfo_xl(
            {key: value.astype("float32") for key, value in half.items()},
            file.config,
        )
        assert_same_weights(model, expected)

    def test_tensors_of_pytorch(self, golden):
        class Tensor:
            # What is used of a torch.Tensor.
            def __init__(self, array, dtype="torch.float32"):
                self.array, self.dtype = array, dtype

            def detach(self):
                return self

            def cpu(self):
                return self

            def float(self):
                return Tensor(self.array)

            def numpy(self):
                if self.dtype == "torch.bfloat16":
                    raise TypeError("Got unsupported ScalarType BFloat16")
                return self.array

        file = golden("hf_untied")
        expected = from_transfo_xl(file.state_dict, file.config)
        for dtype in ("torch.float32", "torch.bfloat16"):
            tensors = {
                key: Tensor(value, dtype)
                for key, value in file.state_dict.items()
            }
            model = from_transfo_xl(tensors, file.config)
            assert_same_weights(model, expected)

    def test_spans_of_choice(self, golden):
        file = golden("transfo_xl_char")
        assert tuple(from_transfo_xl(file.state_dict, file.config).spans) == (
            (11,) * 4
        )
        spans = lrm.MemorySpans([3, 0, 3, 11])
        model = from_transfo_xl(file.state_dict, file.config, spans=spans)
        assert model.spans == spans
        # Weights do not depend on them.
        del file.config["mem_len"]
        other = from_transfo_xl(file.state_dict, file.config, spans=[5] * 4)
        assert_same_weights(model, other)
        message = refusal(file.state_dict, file.config)
        assert "mem_len" in message
        message = refusal(file.state_dict, file.config, spans=[5] * 3)
        assert "4 layers" in message

    def test_attend_to_empty(self, golden):
        file = golden("transfo_xl_char")
        for value in (True, False):
            model = from_transfo_xl(
                file.state_dict, file.config, attend_to_empty=value
            )
            assert model.attend_to_empty is value
        model = from_transfo_xl(file.state_dict, file.config)
        assert model.attend_to_empty

    def test_dtype_policy(self, golden):
        file = golden("hf_three_tails")
        model = from_transfo_xl(
            file.state_dict, file.config, dtype="mixed_bfloat16"
        )
        assert model.compute_dtype == "bfloat16"
        assert_same_weights(
            model, from_transfo_xl(file.state_dict, file.config)
        )
        logits, _ = model(file.arrays["ids"][:, :7])
        expected = file.arrays["log_probs_0"]
        assert np.abs(np.array(logits) - expected).max() < 0.5

    def test_clusters_of_the_pytorch_reference_count_from_the_end(self, golden):
        # The same weights under both kinds of names are two models.
        file = golden("hf_three_tails")
        renamed = {
            key.removeprefix("transformer."): value
            for key, value in file.state_dict.items()
        }
        model, reference = (
            from_transfo_xl(state_dict, file.config).softmax
            for state_dict in (file.state_dict, renamed)
        )
        weight = file.state_dict["crit.cluster_weight"]
        np.testing.assert_array_equal(model.cluster_kernel, weight)
        np.testing.assert_array_equal(reference.cluster_kernel, weight[::-1])
        bias = file.state_dict["crit.cluster_bias"]
        np.testing.assert_array_equal(reference.cluster_bias, bias[::-1])


class TestContradictions:
    @pytest.mark.parametrize(
        ("name", "changes", "expected"),
        [
            ("hf_untied", {"n_layer": 2}, "transformer.layers.2."),
            ("hf_untied", {"n_layer": 4}, "lacks the tensor transformer."),
            ("hf_untied", {"vocab_size": 37}, "calls for [37, 12]"),
            ("hf_untied", {"d_inner": 13}, "pos_ff.CoreNet.0.weight"),
            ("hf_untied", {"n_head": 5, "d_head": 2}, "r_w_bias"),
            ("hf_untied", {"untie_r": False}, "different values"),
            ("hf_untied", {"cutoffs": [7]}, "cluster"),
            ("hf_untied", {"div_val": 2}, "emb_projs.0"),
            ("hf_untied", {"d_embed": 10}, "emb_layers.0.weight"),
            ("transfo_xl_char", {"untie_r": True}, "transformer.r_w_bias"),
            ("hf_three_tails", {"cutoffs": [9, 20]}, "emb_layers.2.weight"),
            ("hf_three_tails", {"cutoffs": [9, 21, 32]}, "emb_layers.1"),
            ("hf_three_tails", {"div_val": 1}, "emb_layers.0.weight"),
            ("hf_three_tails", {"div_val": 3}, "config describes no model: "),
            (
                "hf_unshared",
                {"tie_word_embeddings": True},
                "different values in transformer.word_emb.emb_layers.0.weight",
            ),
            (
                "hf_unshared",
                {"proj_share_all_but_first": True},
                "crit.out_projs.1",
            ),
        ],
    )
    def test_a_config_of_another_model(self, golden, name, changes, expected):
        file = golden(name)
        # What Hugging Face saves in place of proj_share_all_but_first.
        if "proj_share_all_but_first" in changes:
            file.config.pop("tie_projs", None)
        message = refusal(file.state_dict, {**file.config, **changes})
        assert expected in message

    def test_silence_about_untied_biases_is_no_contradiction(self, golden):
        for name in ("hf_untied", "transfo_xl_char"):
            file = golden(name)
            expected = from_transfo_xl(file.state_dict, file.config)
            del file.config["untie_r"]
            model = from_transfo_xl(file.state_dict, file.config)
            assert_same_weights(model, expected)

    def test_projections_tied_one_by_one(self, golden):
        # Then each has a copy of its own in the model.
        file = golden("hf_three_tails")
        expected, _ = from_transfo_xl(file.state_dict, file.config)(
            file.arrays["ids"][:, :7]
        )
        file.config["tie_projs"] = [False, True, False, True]
        model, uses = convert_transfo_xl(file.state_dict, file.config)
        assert not model.get_config()["share_projections"]
        assert uses["crit.out_projs.1"].startswith("the same as")
        assert uses["crit.out_projs.2"] == "used"
        logits, _ = model(file.arrays["ids"][:, :7])
        np.testing.assert_allclose(logits, expected, atol=1e-6)

    def test_names_left_out_as_safetensors_does(self, golden):
        file = golden("hf_three_tails")
        expected = from_transfo_xl(file.state_dict, file.config)
        for index in range(4):
            del file.state_dict[
                f"transformer.word_emb.emb_layers.{index}.weight"
            ]
        for index in (1, 2, 3):
            del file.state_dict[f"crit.out_projs.{index}"]
        model = from_transfo_xl(file.state_dict, file.config)
        assert_same_weights(model, expected)


def test_a_converted_model_decodes(golden):
    file = golden("transfo_xl_word")
    model = from_transfo_xl(file.state_dict, file.config)
    logits, _ = model.next_logits(file.arrays["ids"][:, :7])
    np.testing.assert_allclose(
        keras.ops.log_softmax(logits),
        file.arrays["log_probs_0"][:, -1],
        atol=1e-4,
    )
