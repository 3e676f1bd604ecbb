"""Tests of tokens through the `generate` signature, call after call."""

import os

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.serving import TextGenerator
from official_lrm.serving.checks import MAX_NEW_TOKENS


@pytest.fixture(scope="module")
def generator(short):
    return TextGenerator.from_saved_model(short.path)


def written(generator, prompt, **kwargs):
    chunks = list(generator.stream(prompt, **kwargs))
    return np.concatenate([np.zeros(0, "int32"), *chunks]).tolist()


class TestStream:
    @pytest.mark.parametrize("tokens_per_call", [1, 5, 16, 28, 29, 31])
    def test_the_size_of_calls_does_not_matter(
        self, generator, make_tokens, tokens_per_call
    ):
        prompt = make_tokens(1, 7)[0]
        expected = written(
            generator, prompt, max_new_tokens=29, tokens_per_call=29
        )
        assert len(expected) == 29
        chunks = list(
            generator.stream(
                prompt, max_new_tokens=29, tokens_per_call=tokens_per_call
            )
        )
        sizes = [tokens_per_call] * (29 // tokens_per_call)
        sizes += [29 % tokens_per_call] if 29 % tokens_per_call else []
        assert [chunk.size for chunk in chunks] == sizes
        assert all(chunk.dtype == "int32" for chunk in chunks)
        assert np.concatenate(chunks).tolist() == expected

    @pytest.mark.parametrize("at_once", [1, 5, 22, 23, 29, 512])
    def test_the_reading_of_the_prompt_does_not_matter(
        self, generator, make_tokens, at_once
    ):
        # The prompt is longer than every span, and than most calls take.
        prompt = make_tokens(1, 23)[0]
        expected = written(
            generator, prompt, max_new_tokens=13, prompt_tokens_per_call=23
        )
        assert expected == written(
            generator, prompt, max_new_tokens=13, prompt_tokens_per_call=at_once
        )

    def test_every_token_is_read_once(self, short, make_tokens):
        # Given a signature that notes what it is fed,
        generate, fed = short.loaded.signatures["generate"], []

        class Noted:
            structured_input_signature = generate.structured_input_signature
            structured_outputs = generate.structured_outputs

            def __call__(self, tokens, position, **inputs):
                fed.append((int(position[0]), tokens[0].numpy().tolist()))
                return generate(tokens=tokens, position=position, **inputs)

        prompt = make_tokens(1, 7)[0]
        tokens = written(
            TextGenerator(Noted()),
            prompt,
            max_new_tokens=11,
            tokens_per_call=5,
            prompt_tokens_per_call=3,
        )
        # then it is the prompt and what each call wrote last, in their order.
        prompt = prompt.tolist()
        assert fed == [
            (0, prompt[:3]),
            (3, prompt[3:6]),
            (6, prompt[6:]),
            (7 + 4, tokens[4:5]),
            (7 + 9, tokens[9:10]),
        ]

    def test_settings_reach_the_signature(self, generator, make_tokens):
        prompt = make_tokens(1, 7)[0]
        plain = written(generator, prompt, max_new_tokens=29, temperature=3)
        for change in (
            {"temperature": 0},
            {"top_k": 2},
            {"top_p": 0.3},
            {"seed": 5},
            {"seed": 2**40},
        ):
            settings = {"max_new_tokens": 29, "temperature": 3, **change}
            assert written(generator, prompt, **settings) != plain
        greedy = {"max_new_tokens": 29, "temperature": 0}
        assert written(generator, prompt, **greedy) == written(
            generator, prompt, max_new_tokens=29, top_k=1
        )

    @pytest.mark.parametrize("tokens_per_call", [1, 5, 29])
    def test_it_ends_with_the_stop_token(
        self, generator, make_tokens, tokens_per_call
    ):
        prompt = make_tokens(1, 7)[0]
        whole = written(generator, prompt, max_new_tokens=29)
        stop_token = whole[11]
        expected = whole[: whole.index(stop_token) + 1]
        assert expected == written(
            generator,
            prompt,
            max_new_tokens=29,
            stop_token=stop_token,
            tokens_per_call=tokens_per_call,
        )

    def test_nothing_to_write(self, generator, make_tokens):
        assert not written(generator, make_tokens(1, 7)[0], max_new_tokens=0)

    @pytest.mark.parametrize("prompt", [[], np.zeros(0, "int32")])
    def test_an_empty_prompt_is_refused(self, generator, prompt):
        with pytest.raises(ValueError, match="at least one token; got none"):
            written(generator, prompt, max_new_tokens=5)

    def test_a_prompt_outside_the_vocabulary_is_refused(self, generator):
        with pytest.raises(
            tf.errors.InvalidArgumentError, match="tokens must be from 0 to 22"
        ):
            written(generator, [5, 23], max_new_tokens=5)

    @pytest.mark.parametrize(
        "name", ["tokens_per_call", "prompt_tokens_per_call"]
    )
    @pytest.mark.parametrize("value", [0, -3])
    def test_calls_of_no_tokens_are_refused(self, generator, name, value):
        message = f"^{name} must be at least 1; got {value}"
        with pytest.raises(ValueError, match=message):
            written(generator, [5, 3], max_new_tokens=5, **{name: value})

    def test_more_than_a_call_may_write(self, generator):
        assert (
            len(
                written(
                    generator,
                    [5, 3],
                    max_new_tokens=7,
                    tokens_per_call=MAX_NEW_TOKENS + 1,
                )
            )
            == 7
        )


class TestSources:
    def test_a_model_in_the_process_writes_the_same(
        self, short, generator, make_tokens
    ):
        prompt = make_tokens(1, 7)[0]
        other = TextGenerator.from_model(short.model)
        for seed in (0, 5):
            assert written(
                other, prompt, max_new_tokens=29, seed=seed
            ) == written(generator, prompt, max_new_tokens=29, seed=seed)

    def test_no_saved_model(self, tmp_path):
        message = f"^no SavedModel at {tmp_path}"
        with pytest.raises(FileNotFoundError, match=message):
            TextGenerator.from_saved_model(str(tmp_path))

    def test_a_damaged_saved_model(self, tmp_path, short):
        with open(os.path.join(short.path, "saved_model.pb"), "rb") as stream:
            content = stream.read()
        (tmp_path / "saved_model.pb").write_bytes(content[:1009])
        with pytest.raises(ValueError, match="cannot be loaded") as caught:
            TextGenerator.from_saved_model(str(tmp_path))
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_saved_model_without_its_variables(self, tmp_path, short):
        with open(os.path.join(short.path, "saved_model.pb"), "rb") as stream:
            content = stream.read()
        (tmp_path / "saved_model.pb").write_bytes(content)
        with pytest.raises(ValueError, match="cannot be loaded") as caught:
            TextGenerator.from_saved_model(str(tmp_path))
        assert "\n" not in str(caught.value)

    def test_a_saved_model_of_something_else(self, tmp_path):
        module = tf.Module()
        module.double = tf.function(
            lambda x: {"y": 2 * x},
            input_signature=[tf.TensorSpec([None], tf.float32, "x")],
        )
        path = str(tmp_path)
        tf.saved_model.save(module, path, signatures={"double": module.double})
        message = "has no signature `generate`; it has double"
        with pytest.raises(ValueError, match=message):
            TextGenerator.from_saved_model(path)
