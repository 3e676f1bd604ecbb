r"""Shows the memory spans of a config or of flags: diagram, state, parameters.

    python tools/show_spans.py --num_layers=24 --num_long=4 --hidden_size=1024
    python tools/show_spans.py --experiment=lrm_enwik8 \
        --config_file=configs/enwik8/lrm04_interleaved.yaml
    python tools/show_spans.py --spans=128,0,2304 --hidden_size=1024
"""

from absl import flags

from official_lrm import command_line

FLAGS = flags.FLAGS
flags.DEFINE_string("experiment", None, "Name of a registered experiment.")
flags.DEFINE_multi_string(
    "config_file",
    [],
    "YAML file of overrides; of lrm_enwik8 unless --experiment says otherwise.",
)
flags.DEFINE_string("params_override", None, "As for tools/train.py.")
flags.DEFINE_string(
    "spans", None, "Memory length of each layer, separated by commas."
)
flags.DEFINE_integer("num_layers", None, "Number of layers.")
flags.DEFINE_integer(
    "num_long", None, "Number of long-range memories; all by default."
)
flags.DEFINE_string(
    "placement", "interleaved", "interleaved, first, last or middle."
)
flags.DEFINE_integer("long", 2304, "Span of the long layers.")
flags.DEFINE_integer("short", 128, "Span of all others.")
flags.DEFINE_integer(
    "test_long", 6000, "Span of the long layers at test time; 0 = not shown."
)
flags.DEFINE_integer(
    "hidden_size", None, "D, for the state's bytes (flags only)."
)
flags.DEFINE_integer("batch_size", 1, "Lanes to count the state of.")
flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16", "float64"], "Of the state."
)


def main():
    """Prints the diagram and the figures."""
    from official_lrm.memory.spans import MemorySpans

    parameters = None
    hidden_size = FLAGS.hidden_size
    if FLAGS.experiment or FLAGS.config_file:
        from official_lrm.training import params as experiment_params

        params = experiment_params.parse_params(
            FLAGS.experiment or "lrm_enwik8",
            config_files=FLAGS.config_file,
            params_override=FLAGS.params_override,
        )
        spans, hidden_size, parameters = experiment_params.sizes(params)
    elif FLAGS.spans:
        spans = MemorySpans(command_line.parse_integers("spans", FLAGS.spans))
    elif FLAGS.num_layers:
        num_long = FLAGS.num_long
        spans = MemorySpans.arrange(
            FLAGS.num_layers,
            FLAGS.num_layers if num_long is None else num_long,
            FLAGS.placement,
            FLAGS.long,
            FLAGS.short,
        )
    else:
        raise ValueError(
            "give --experiment, --config_file, --spans or --num_layers."
        )
    print(spans.diagram())
    if hidden_size:
        print(state_table(spans, hidden_size))
    if parameters:
        print(f"parameters: {parameters:,} (the same for any spans)")


def state_table(spans, hidden_size) -> str:
    """Bytes of the state with these spans and with full memory.

    Args:
        spans: MemorySpans.
        hidden_size: D.
    """
    from official_lrm.memory.spans import MemorySpans

    rows = [("spans", spans)]
    if FLAGS.test_long and any(spans.is_long):
        rows.append(
            (f"long = {FLAGS.test_long}", spans.with_long(FLAGS.test_long))
        )
    lines = [
        f"state, batch {FLAGS.batch_size}, {FLAGS.dtype}:"
        f"  {'these spans':>12}  {'all long':>12}  share"
    ]
    for name, shown in rows:
        full = MemorySpans([max(shown)] * len(shown))
        sizes = [
            value.state_bytes(hidden_size, FLAGS.batch_size, FLAGS.dtype)
            for value in (shown, full)
        ]
        share = f"{sizes[0] / sizes[1]:.0%}" if sizes[1] else "-"
        mebibytes = [f"{size / 2**20:,.2f} MiB" for size in sizes]
        width = len(lines[0]) - len("  these spans") - 22
        lines.append(
            f"  {name:<{width}}  {mebibytes[0]:>12}  {mebibytes[1]:>12}"
            f"  {share:>5}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    command_line.run(main)
