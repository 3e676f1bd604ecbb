r"""Exports a trained model as a SavedModel for TensorFlow Serving.

    python export/export_saved_model.py --model=runs/first \
        --export_dir=exports/first

writes exports/first/<version>/ with the signatures serving_default, predict,
score and generate. Memories are inputs and outputs of a call (carried state):
only those that the spans retain, with the same names, shapes and dtypes in and
out, so that a response feeds straight back as the next request.
"""

from absl import flags

from official_lrm import command_line

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A model_dir or a preset.")
flags.DEFINE_string("export_dir", None, "The folder that TF Serving watches.")
flags.DEFINE_integer(
    "version", None, "The version; one more than the highest by default."
)
flags.DEFINE_string(
    "spans", None, "Other memory lengths, one per layer, separated by commas."
)
flags.DEFINE_bool(
    "same_length",
    None,
    "Override for predict and score: every query sees M_l keys, so that "
    "results do not depend on how a text is cut. generate always does.",
)


def main():
    """Exports and prints what the signatures carry."""
    from official_lrm import serving
    from official_lrm.training import load_model, read_tokenizer

    for name in ("model", "export_dir"):
        if not FLAGS[name].value:
            raise ValueError(f"--{name} must be given.")
    spans = None
    if FLAGS.spans:
        spans = command_line.parse_integers("spans", FLAGS.spans)
    model = load_model(FLAGS.model, spans=spans)
    if FLAGS.same_length is not None:
        model = model.with_spans(model.spans, same_length=FLAGS.same_length)
    path = serving.export_saved_model(
        model,
        FLAGS.export_dir,
        version=FLAGS.version,
        tokenizer=read_tokenizer(FLAGS.model),
    )
    print(serving.describe_state(model))
    print(f"exported: {path}")


if __name__ == "__main__":
    command_line.run(main)
