"""Tests of the model's dtype policies."""

import keras
import numpy as np
import pytest

from official_lrm.layers import sinusoidal_positions


class TestDtypes:
    def test_mixed_bfloat16_is_near_float32(
        self, make_model, make_tokens, run_segments
    ):
        spans, cuts = (53, 0, 11), [37, 37, 5]
        tokens = make_tokens(2, 79)
        model = make_model(spans)
        mixed = make_model(spans, dtype="mixed_bfloat16")
        logits, _ = run_segments(model, tokens, cuts)
        mixed_logits, memories = run_segments(mixed, tokens, cuts)
        assert mixed_logits.dtype == np.float32
        dtypes = {name: value.dtype.name for name, value in memories.items()}
        assert dtypes == {
            "memory_00": "bfloat16",
            "memory_02": "bfloat16",
            "position": "int32",
        }
        assert {weight.dtype for weight in mixed.weights} == {"float32"}
        # Log-probabilities, of a standard deviation of 2, differ by what 8
        # bits of mantissa cost in three layers with large weights.
        log_probs, mixed_log_probs = (
            np.array(keras.ops.log_softmax(x)) for x in (logits, mixed_logits)
        )
        error = np.abs(mixed_log_probs - log_probs)
        assert 0 < np.mean(error) < 0.06
        assert np.quantile(error, 0.99) < 0.4
        assert np.std(log_probs) > 1.5

    @pytest.mark.parametrize(
        ("policy", "expected"),
        [
            ("mixed_bfloat16", "float32"),
            ("bfloat16", "float32"),
            ("mixed_float16", "float32"),
            ("float64", "float64"),
        ],
    )
    def test_distances_are_never_in_half_precision(
        self, make_model, make_tokens, monkeypatch, policy, expected
    ):
        dtypes = []

        def record(*args, **kwargs):
            table = sinusoidal_positions(*args, **kwargs)
            dtypes.append(keras.backend.standardize_dtype(table.dtype))
            return table

        monkeypatch.setattr(
            "official_lrm.models.transformer_xl.sinusoidal_positions", record
        )
        make_model(dtype=policy)(make_tokens(2, 3))
        assert dtypes == [expected]

    def test_mixed_float16_is_finite(self, make_model, make_tokens):
        model = make_model(dtype="mixed_float16")
        logits, memories = model(make_tokens(2, 7))
        expected, _ = make_model()(make_tokens(2, 7))
        assert memories["memory_00"].dtype == "float16"
        np.testing.assert_allclose(logits, expected, atol=0.1)

    def test_float64(self, make_model, make_tokens):
        tokens = make_tokens(2, 7)
        model = make_model(dtype="float64")
        logits, memories = model(tokens)
        assert logits.dtype == "float64"
        assert memories["memory_00"].dtype == "float64"
        assert model.score(tokens, tokens)[0].dtype == "float64"
        # Not float32 in disguise.
        rounded = np.array(logits).astype("float32").astype("float64")
        assert np.all(rounded != np.array(logits))
        expected, _ = make_model()(tokens)
        np.testing.assert_allclose(logits, expected, atol=1e-5)

    def test_float32_is_float64_but_for_rounding_at_long_distances(
        self, make_model, make_tokens, run_segments
    ):
        # Softmax, layer norms and positions lose nothing over 600 tokens.
        tokens = make_tokens(2, 600)
        logits, double = (
            run_segments(make_model((499, 3), dtype=dtype), tokens, [300] * 2)
            for dtype in ("float32", "float64")
        )
        np.testing.assert_allclose(logits[0], double[0], atol=1e-3)
