r"""Scores a text with a trained model and says how the figures came about.

    python tools/evaluate.py --model=runs/first/best
    python tools/evaluate.py --model=runs/enwik8 --long_memory=0,768,2304,6000
    python tools/evaluate.py --model=runs/enwik8 --split=test --protocol=rae2020
    python tools/evaluate.py --model=runs/first/preset --spans=64,0,0,0,0,384 \
        --corpus=text --input_path=book.txt --split=all

--model is a model_dir of tools/train.py (its newest checkpoint), one of its
presets (best/, preset/), or any other preset. Corpus and segment length are
those of the run unless flags say otherwise. Any spans work with any weights:
nothing is retrained. Every target of the split counts
once; memory is cold at the start of each lane and document.

The table shows bits per character (bpc) of models of characters, else
perplexity and bits per byte of text (bpb), and where tokens are no words the
perplexity per word (word_ppl), in which models of all kinds compare. --output
has all of these, and everything that they depend on.

--protocol evaluates as a paper does: dai2019 (T=128, same_length, clamp 1000,
memory 3800 for characters and 1600 for words) or rae2020 (T=384, long memories
of 6000, of validation characters the first 500,000). Flags that are given as
well go first, and the line "protocol:" names them.
"""

from absl import flags

from official_lrm import command_line

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A model_dir or a preset.")
flags.DEFINE_string(
    "corpus",
    None,
    "python_stdlib, text, enwik8, text8, wikitext2, wikitext103 or books; the "
    "run's by default.",
)
flags.DEFINE_string(
    "input_path",
    None,
    "For text a file, a glob or several, by commas; for the others a folder "
    "with what was downloaded by hand.",
)
flags.DEFINE_enum(
    "split",
    "validation",
    ["train", "validation", "test", "all"],
    "Which part of the corpus.",
)
flags.DEFINE_integer(
    "segment_length",
    None,
    "T, tokens at once; by default that of --protocol, else the model_dir's "
    "training T, 128 for a preset.",
    lower_bound=1,
)
flags.DEFINE_integer(
    "lanes", 1, "Lanes that the text is cut into.", lower_bound=1
)
flags.DEFINE_integer(
    "max_tokens",
    None,
    "Score only so many targets, the first of the split.",
    lower_bound=1,
)
flags.DEFINE_enum(
    "protocol", None, ["dai2019", "rae2020"], "Evaluate as this paper does."
)
command_line.define_spans_flags("the model's own")
flags.DEFINE_string(
    "long_memory",
    None,
    "Sweep: lengths for the long layers, separated by commas.",
)
flags.DEFINE_bool("same_length", None, "Override: every query sees M_l keys.")
flags.DEFINE_integer("clamp_length", None, "Override: clamp distances.")
flags.DEFINE_enum(
    "dtype",
    None,
    ["float32", "bfloat16", "mixed_bfloat16"],
    "Override: dtype of weights and arithmetic, as for export.",
)
flags.DEFINE_enum(
    "memory_dtype",
    None,
    ["float32", "bfloat16", "int8"],
    "Override: what memories are kept in between segments, to see what a "
    "smaller one costs before it is exported.",
)
flags.DEFINE_integer(
    "decode_tokens",
    2000,
    "Also score the first so many targets one token at a time (T=1), as "
    "decoding reads them; 0 = do not.",
    lower_bound=0,
)
flags.DEFINE_bool(
    "positions", False, "Also print the loss by position since the last reset."
)
flags.DEFINE_string(
    "output",
    None,
    "Write the figures as JSON lines too, each when its row is done. A file "
    "that holds something is refused.",
)


def main():
    """Evaluates and prints a table."""
    from official_lrm.training import evaluation_report

    if not FLAGS.model:
        raise ValueError("--model must be given: a model_dir or a preset.")
    spans, arrangement = command_line.chosen_spans()
    long_memory = None
    if FLAGS.long_memory:
        long_memory = command_line.parse_integers(
            "long_memory", FLAGS.long_memory
        )
    evaluation_report.report(
        FLAGS.model,
        corpus=FLAGS.corpus,
        input_path=FLAGS.input_path,
        split=FLAGS.split,
        segment_length=FLAGS.segment_length,
        lanes=FLAGS.lanes,
        max_tokens=FLAGS.max_tokens,
        spans=spans,
        arrangement=arrangement,
        long_memory=long_memory,
        overrides={
            name: FLAGS[name].value
            for name in ("same_length", "clamp_length", "memory_dtype")
            if FLAGS[name].value is not None
        },
        decode_tokens=FLAGS.decode_tokens,
        output=FLAGS.output,
        protocol=FLAGS.protocol,
        positions=FLAGS.positions,
        dtype=FLAGS.dtype,
    )


if __name__ == "__main__":
    command_line.run(main)
