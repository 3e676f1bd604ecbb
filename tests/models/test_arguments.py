"""Tests of the language model's arguments: what is refused, and how."""

import json

import numpy as np
import pytest

import official_lrm as lrm
from official_lrm.models.arguments import check_same_shapes, shape_arguments

UNEVEN = (5, 0, 11)


def make(**arguments):
    return lrm.TransformerXLLanguageModel(
        **{
            "spans": UNEVEN,
            "vocab_size": 19,
            "hidden_size": 14,
            "num_heads": 3,
            "head_size": 5,
            "inner_size": 17,
            **arguments,
        }
    )


class TestConstruction:
    @pytest.mark.parametrize(
        ("argument", "value", "allowed"),
        [
            ("vocab_size", 0, "a positive integer"),
            ("vocab_size", -3, "a positive integer"),
            ("vocab_size", 19.0, "a positive integer"),
            ("vocab_size", "19", "a positive integer"),
            ("hidden_size", None, "a positive integer"),
            ("hidden_size", 0, "a positive integer"),
            ("hidden_size", 7, "even"),
            ("num_heads", True, "a positive integer"),
            ("num_heads", [3], "a positive integer"),
            ("head_size", 0, "a positive integer"),
            ("inner_size", -1, "a positive integer"),
            ("dropout", -0.1, "from 0 to below 1"),
            ("dropout", 1, "from 0 to below 1"),
            ("dropout", float("nan"), "from 0 to below 1"),
            ("dropout", "0.1", "from 0 to below 1"),
            ("dropout", True, "from 0 to below 1"),
            ("attention_dropout", 1.5, "from 0 to below 1"),
            ("attention_dropout", None, "from 0 to below 1"),
            ("clamp_length", 0, "a positive integer or None"),
            ("clamp_length", -1, "a positive integer or None"),
            ("clamp_length", 9.0, "a positive integer or None"),
            ("clamp_length", True, "a positive integer or None"),
            ("layer_norm_epsilon", 0, "a positive number"),
            ("layer_norm_epsilon", -1e-5, "a positive number"),
            ("layer_norm_epsilon", "1e-5", "a positive number"),
            ("layer_norm_epsilon", float("inf"), "a positive number"),
            ("initializer_stddev", -0.02, "a positive number"),
            ("initializer_stddev", None, "a positive number"),
            ("projection_initializer_stddev", 0, "a positive number"),
            ("projection_initializer_stddev", "0.01", "a positive number"),
            ("div_value", 0, "a positive integer"),
            ("div_value", -2, "a positive integer"),
            ("div_value", 2.0, "a positive integer"),
            ("div_value", "2", "a positive integer"),
            ("div_value", None, "a positive integer"),
            ("div_value", True, "a positive integer"),
            ("embedding_size", 0, "a positive integer or None"),
            ("embedding_size", -14, "a positive integer or None"),
            ("embedding_size", 14.0, "a positive integer or None"),
            ("embedding_size", True, "a positive integer or None"),
            ("cutoffs", 5, "a tuple of token ids"),
            ("cutoffs", None, "a tuple of token ids"),
            ("cutoffs", "5", "a tuple of token ids"),
            ("cutoffs", b"5", "a tuple of token ids"),
            ("cutoffs", {5: 8}, "a tuple of token ids"),
            ("cutoffs", {5, 8}, "a tuple of token ids"),
            ("cutoffs", [8, 5], "rise and lie between 0 and vocab_size=19"),
            ("cutoffs", [5, 5], "rise and lie between 0 and vocab_size=19"),
            ("cutoffs", [5, 19], "rise and lie between 0 and vocab_size=19"),
            ("cutoffs", [5, 23], "rise and lie between 0 and vocab_size=19"),
            ("cutoffs", [19], "rise and lie between 0 and vocab_size=19"),
        ],
    )
    def test_a_wrong_value_is_named(self, argument, value, allowed):
        with pytest.raises(ValueError) as info:
            make(**{argument: value})
        message = str(info.value)
        assert message.startswith(f"{argument} must ")
        assert allowed in message
        assert message.endswith(f"got {value!r}.")
        assert "\n" not in message

    @pytest.mark.parametrize(
        ("cutoffs", "place", "got"),
        [
            ((0, 5), 0, "0"),
            ((5, -8), 1, "-8"),
            ((5, 8.0), 1, "8.0"),
            (("5", 8), 0, "'5'"),
            ((5, True), 1, "True"),
            ((5, None), 1, "None"),
            (([5, 8],), 0, r"\[5, 8\]"),
        ],
        ids=str,
    )
    def test_a_wrong_cutoff_is_named(self, cutoffs, place, got):
        message = (
            rf"^cutoffs\[{place}\] must be a positive integer; got {got}\.$"
        )
        with pytest.raises(ValueError, match=message):
            make(cutoffs=cutoffs)

    def test_every_cluster_must_have_a_width(self):
        options = {"cutoffs": (5, 8), "div_value": 4}
        message = (
            r"^embedding_size must be at least div_value \*\* 2 = 16, so that "
            r"the last cluster has a width; got 15\.$"
        )
        with pytest.raises(ValueError, match=message):
            make(embedding_size=15, **options)
        # By default it is the hidden size.
        with pytest.raises(ValueError, match="embedding_size .* got 14"):
            make(**options)
        assert make(embedding_size=16, **options).count_params() > 0

    def test_clusters_of_one_token(self, make_tokens):
        model = make(cutoffs=(1, 2, 18))
        tokens = make_tokens(2, 7)
        log_probs, _ = model(tokens)
        assert log_probs.shape == (2, 7, 19)
        scores, _ = model.score(tokens, tokens)
        expected = np.take_along_axis(np.array(log_probs), tokens[..., None], 2)
        np.testing.assert_allclose(scores, expected[..., 0], atol=1e-5)

    @pytest.mark.parametrize(
        ("spans", "got"),
        [
            (5, "got 5"),
            ([], "got an empty sequence"),
            ([5, -1], "got -1"),
            ({5, 3}, "got {3, 5}"),
        ],
    )
    def test_wrong_spans(self, make_model, spans, got):
        with pytest.raises(ValueError, match=f"^lengths must .*{got}"):
            make_model(spans)

    def test_an_unknown_argument_is_refused(self, make_model):
        with pytest.raises((TypeError, ValueError), match="num_layers"):
            make_model(num_layers=3)

    def test_no_adaptive_softmax_may_be_said_in_other_words(self):
        model = make(cutoffs=[], embedding_size=14, div_value=1)
        assert model.vocab_size == 19
        assert model.hidden_size == 14
        plain = make()
        assert shape_arguments(model.get_config()) == shape_arguments(
            plain.get_config()
        )
        assert model.count_params() == plain.count_params()

    def test_numbers_of_numpy(self, make_model, make_tokens):
        model = lrm.TransformerXLLanguageModel(
            vocab_size=np.int64(19),
            spans=np.array([5, 0, 11]),
            hidden_size=np.int32(14),
            num_heads=np.int64(3),
            head_size=np.int64(5),
            inner_size=np.int64(17),
            dropout=np.float32(0.25),
            clamp_length=np.int64(7),
            cutoffs=np.array([5, 8]),
            div_value=np.int64(2),
            embedding_size=np.int32(23),
        )
        assert model.spans == lrm.MemorySpans([5, 0, 11])
        config = model.get_config()
        kinds = {name: type(value) for name, value in config.items()}
        assert kinds["vocab_size"] is kinds["clamp_length"] is int
        assert kinds["dropout"] is float
        assert kinds["div_value"] is kinds["embedding_size"] is int
        assert json.loads(json.dumps(config["cutoffs"])) == [5, 8]
        assert model(make_tokens(2, 7))[0].shape == (2, 7, 19)

    def test_a_clamp_acts_on_distances_beyond_it(self, make_model, make_tokens):
        tokens = make_tokens(2, 7)
        expected = make_model()(tokens)[0]
        # Distances are up to 6: a clamp of 6 does nothing, one of 2 does.
        far, near = (
            make_model(clamp_length=clamp)(tokens)[0] for clamp in (6, 2)
        )
        np.testing.assert_allclose(far, expected, atol=1e-6)
        np.testing.assert_allclose(near[:, :3], expected[:, :3], atol=1e-6)
        assert np.all(np.max(np.abs(near - expected), axis=-1)[:, 3:] > 1e-4)


class TestShapes:
    def test_of_a_config_from_before_there_were_cutoffs(self):
        config = make(cutoffs=(), untie_biases=True).get_config()
        expected = shape_arguments(config)
        for name in (
            "cutoffs",
            "div_value",
            "embedding_size",
            "tie_embeddings",
            "share_projections",
            "projection_initializer_stddev",
        ):
            del config[name]
        assert shape_arguments(config) == expected
        assert expected["cutoffs"] == []
        assert expected["embedding_size"] == 14

    @pytest.mark.parametrize(
        ("name", "value", "got", "ours"),
        [
            ("cutoffs", (5, 11), r"\[5, 11\]", r"\[5, 8\]"),
            ("cutoffs", (), r"\[\]", r"\[5, 8\]"),
            ("div_value", 3, "3", "2"),
            ("embedding_size", 23, "23", "14"),
            ("tie_embeddings", False, "False", "True"),
            ("share_projections", False, "False", "True"),
            ("untie_biases", True, "True", "False"),
            ("inner_size", 11, "11", "17"),
        ],
        ids=str,
    )
    def test_what_differs_is_named(self, name, value, got, ours):
        config = make(cutoffs=(5, 8), div_value=2).get_config()
        other = {**config, name: value}
        message = f"^weights has {name} {got}; the model has {ours}\\.$"
        with pytest.raises(ValueError, match=message):
            check_same_shapes("weights", other, config)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("cutoffs", (5, 8)),
            ("embedding_size", None),
            ("dropout", 0.5),
            ("clamp_length", 3),
            ("initializer_stddev", 0.7),
            ("projection_initializer_stddev", 0.7),
        ],
        ids=str,
    )
    def test_what_shapes_do_not_depend_on_may_differ(self, name, value):
        config = make(cutoffs=(5, 8), div_value=2).get_config()
        check_same_shapes("weights", {**config, name: value}, config)
        check_same_shapes("weights", config, {**config, name: value})
