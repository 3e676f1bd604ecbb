r"""Exports a trained model as a SavedModel for TensorFlow Serving.

    python export/export_saved_model.py --model=runs/first \
        --export_dir=exports/first

writes exports/first/<version>/. Memories are inputs and outputs of a call
(carried state): only those that the spans retain, with the same names, shapes
and dtypes in and out, so that a response feeds straight back as the next
request. What travels can be made smaller:

    --spans=128,128,128,2304    other memories, with the same weights
    --memory_dtype=int8         a quarter of float32
    --memory_format=key_value   decoding projects no memory again; 2*N*H instead
                                of D numbers a position

or stay in the server, --state=resident, for one replica: signatures
session_step, session_generate and session_end take a session_id instead of
memories. Start TensorFlow Serving with it, then see export/client.py.
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
flags.DEFINE_enum(
    "state",
    "carried",
    ["carried", "resident"],
    "Where memories are between calls: with the client, or (as well) in the "
    "server.",
)
flags.DEFINE_integer(
    "sessions",
    None,
    "With --state=resident: sessions that are kept; one more takes the place "
    "of the one least recently used. 16 by default.",
    lower_bound=1,
)
flags.DEFINE_enum(
    "memory_format",
    "hidden",
    ["hidden", "key_value"],
    "What memories hold of a position: the layer's input, or its keys and "
    "values.",
)
flags.DEFINE_enum(
    "memory_dtype",
    None,
    ["float32", "bfloat16", "int8"],
    "What memories are kept in, int8 with one scale per position; what layers "
    "compute with by default.",
)
flags.DEFINE_enum(
    "dtype",
    None,
    ["float32", "bfloat16", "mixed_bfloat16"],
    "Of weights and arithmetic; bfloat16 halves what a token reads. The run's "
    "own by default.",
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
    if FLAGS.sessions and FLAGS.state != "resident":
        raise ValueError("--sessions needs --state=resident.")
    spans = None
    if FLAGS.spans:
        spans = command_line.parse_integers("spans", FLAGS.spans)
    model = load_model(FLAGS.model, spans=spans, dtype=FLAGS.dtype)
    overrides = {
        "memory_format": FLAGS.memory_format,
        "memory_dtype": FLAGS.memory_dtype,
    }
    if FLAGS.same_length is not None:
        overrides["same_length"] = FLAGS.same_length
    model = model.with_spans(model.spans, **overrides)
    sessions = FLAGS.sessions or serving.NUM_SESSIONS
    path = serving.export_saved_model(
        model,
        FLAGS.export_dir,
        version=FLAGS.version,
        tokenizer=read_tokenizer(FLAGS.model),
        state=FLAGS.state,
        num_sessions=sessions,
    )
    resident = FLAGS.state == "resident"
    print(serving.describe_state(model, sessions if resident else 0))
    print(f"exported: {path}")


if __name__ == "__main__":
    command_line.run(main)
