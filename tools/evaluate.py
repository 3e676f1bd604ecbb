r"""Scores a text with a trained model: bits per character and its protocol.

    python tools/evaluate.py --model=runs/first
    python tools/evaluate.py --model=runs/enwik8 --long_memory=0,768,2304,6000
    python tools/evaluate.py --model=runs/first/preset --spans=64,0,0,0,0,384 \
        --corpus=text --input_path=book.txt --split=all

--model is a model_dir of tools/train.py (then corpus and segment length are
those of its params.yaml unless flags say otherwise) or a preset. Any spans
work with any weights: nothing is retrained. Every target of the split counts
once; memory is cold at the start of each lane.
"""

from absl import flags

from official_lrm import command_line

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A model_dir or a preset.")
flags.DEFINE_string(
    "corpus", None, "python_stdlib or text; the model_dir's by default."
)
flags.DEFINE_string(
    "input_path", None, "For --corpus=text: file, glob or several, by commas."
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
    "T, tokens at once; by default the model_dir's training T, 128 for a "
    "preset.",
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
flags.DEFINE_string(
    "spans", None, "Other memory lengths, one per layer, separated by commas."
)
flags.DEFINE_integer("num_long", None, "Other spans: number of long ones.")
flags.DEFINE_string("placement", "interleaved", "Other spans: with --num_long.")
flags.DEFINE_integer("long", 2304, "Other spans: with --num_long.")
flags.DEFINE_integer("short", 128, "Other spans: with --num_long.")
flags.DEFINE_string(
    "long_memory",
    None,
    "Sweep: lengths for the long layers, separated by commas.",
)
flags.DEFINE_bool("same_length", None, "Override: every query sees M_l keys.")
flags.DEFINE_integer("clamp_length", None, "Override: clamp distances.")
flags.DEFINE_integer(
    "decode_tokens",
    2000,
    "Also score the first so many targets one token at a time (T=1), as "
    "decoding reads them; 0 = do not.",
    lower_bound=0,
)
flags.DEFINE_string("output", None, "Write the figures as JSON lines too.")


def main():
    """Evaluates and prints a table."""
    from official_lrm.training import evaluation_report

    if not FLAGS.model:
        raise ValueError("--model must be given: a model_dir or a preset.")
    spans = None
    if FLAGS.spans:
        spans = command_line.parse_integers("spans", FLAGS.spans)
    arrangement = None
    names = ("num_long", "placement", "long", "short")
    if FLAGS.num_long is not None:
        arrangement = {name: FLAGS[name].value for name in names}
    elif given := [name for name in names if FLAGS[name].present]:
        raise ValueError(f"--{given[0]} needs --num_long.")
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
            for name in ("same_length", "clamp_length")
            if FLAGS[name].value is not None
        },
        decode_tokens=FLAGS.decode_tokens,
        output=FLAGS.output,
    )


if __name__ == "__main__":
    command_line.run(main)
