r"""Writes text with a model, memory handed from call to call.

    python tools/generate.py --model=runs/first/preset --prompt="def main("
    python tools/generate.py --model=exports/first --prompt="import " \
        --max_new_tokens=500 --temperature=0.8 --top_p=0.95 --seed=7

--model is a preset, a model_dir, or an export (a version's folder, or the
folder above it for the newest version). The text goes to standard output as it
is written.
"""

import os
import sys

from absl import flags

from official_lrm import command_line

_INT32_MAX = 2**31 - 1

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A preset, a model_dir or an export.")
flags.DEFINE_string(
    "prompt",
    "\n",
    "Text to go on from; by default a line's end, or the first id of a "
    "vocabulary without one.",
)
flags.DEFINE_string("prompt_file", None, "File with the prompt instead.")
flags.DEFINE_integer("max_new_tokens", 300, "Tokens to write.", lower_bound=0)
flags.DEFINE_float(
    "temperature", 0.8, "0 = always the likeliest token.", lower_bound=0
)
flags.DEFINE_integer(
    "top_k",
    0,
    "Draw from so many tokens only; 0 = from all.",
    lower_bound=0,
    upper_bound=_INT32_MAX,
)
flags.DEFINE_float(
    "top_p", 1.0, "Draw from the likeliest tokens that hold this probability."
)
flags.DEFINE_integer(
    "seed",
    0,
    "The same seed writes the same text.",
    lower_bound=-(2**63),
    upper_bound=2**63 - 1,
)
flags.DEFINE_integer(
    "stop_token",
    -1,
    "Stop after this token id; -1 = never.",
    lower_bound=-1,
    upper_bound=_INT32_MAX,
)
flags.DEFINE_integer(
    "tokens_per_call",
    16,
    "Tokens that one call of the signature writes; the text is the same.",
    lower_bound=1,
)


def main():
    """Streams text to standard output."""
    from official_lrm.serving import text_stream

    if not FLAGS.model:
        raise ValueError("--model must be given: a preset or an export.")
    if not 0 < FLAGS.top_p <= 1:
        raise ValueError(
            f"--top_p must be above 0 and at most 1; got {FLAGS.top_p}"
        )
    if not 0 <= FLAGS.temperature < float("inf"):
        raise ValueError(
            "--temperature must be finite and not negative; got "
            f"{FLAGS.temperature}"
        )
    # The bytes as they were given, be they UTF-8 or not.
    prompt = os.fsencode(FLAGS.prompt)
    if FLAGS.prompt_file:
        if FLAGS["prompt"].present:
            raise ValueError("give --prompt or --prompt_file, not both.")
        with open(FLAGS.prompt_file, "rb") as stream:
            prompt = stream.read()
    generator, tokenizer = open_model(FLAGS.model)
    given = FLAGS["prompt"].present or FLAGS.prompt_file
    if not given and not tokenizer.encode(prompt).size:
        prompt = tokenizer.decode([0])
    rate = text_stream.write_text(
        generator,
        tokenizer,
        prompt,
        sys.stdout,
        max_new_tokens=FLAGS.max_new_tokens,
        temperature=FLAGS.temperature,
        top_k=FLAGS.top_k,
        top_p=FLAGS.top_p,
        seed=FLAGS.seed,
        stop_token=FLAGS.stop_token,
        tokens_per_call=FLAGS.tokens_per_call,
    )
    if rate:
        print(f"{rate:,.0f} tokens/s", file=sys.stderr)


def open_model(path):
    """Opens what --model names.

    Args:
        path: a model_dir (its newest checkpoint is taken), a preset or an
            export.

    Returns:
        (TextGenerator, tokenizer).
    """
    from official_lrm.serving import TextGenerator, text_stream

    if not os.path.isfile(os.path.join(path, "params.yaml")):
        return text_stream.open_generator(path)
    from official_lrm.training import load_model, read_tokenizer

    return TextGenerator.from_model(load_model(path)), read_tokenizer(path)


if __name__ == "__main__":
    command_line.run(main)
