r"""Shows the memory spans of a config or of flags: diagram, state, parameters.

    python tools/show_spans.py --num_layers=24 --num_long=4 --hidden_size=1024
    python tools/show_spans.py --experiment=lrm_enwik8 \
        --config_file=configs/enwik8/lrm04_interleaved.yaml
    python tools/show_spans.py --spans=128,0,2304 --hidden_size=1024 \
        --num_heads=8 --head_size=128 --inner_size=3072 --vocab_size=204
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
    "test_long",
    6000,
    "Span of the long layers at test time; 0 = not shown.",
    lower_bound=0,
)
for _name, _help in (
    ("hidden_size", "D, for the state's bytes."),
    ("num_heads", "N; with the three below, for the parameter count."),
    ("head_size", "H."),
    ("inner_size", "F."),
    ("vocab_size", "V."),
):
    flags.DEFINE_integer(
        _name, None, f"{_help} Not with a config.", lower_bound=1
    )
flags.DEFINE_bool("untie_biases", False, "Attention biases of each layer.")
flags.DEFINE_integer(
    "batch_size", 1, "Lanes to count the state of.", lower_bound=1
)
flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16", "float64"], "Of the state."
)


_CONFIG_FLAGS = ("experiment", "config_file", "params_override")
_ARRANGEMENT_FLAGS = ("num_layers", "num_long", "placement", "long", "short")
_SIZE_FLAGS = (
    "hidden_size",
    "num_heads",
    "head_size",
    "inner_size",
    "vocab_size",
    "untie_biases",
)


def main():
    """Prints the diagram and the figures."""
    spans, hidden_size, parameters = described()
    print(spans.diagram())
    if hidden_size:
        print(state_table(spans, hidden_size))
    if parameters:
        print(f"parameters: {parameters:,} (the same for any spans)")


def described():
    """Spans, hidden size and parameters of what the flags describe.

    Returns:
        (MemorySpans, D or None, number of parameters or None).

    Raises:
        ValueError: if they describe nothing, or two things.
    """
    from official_lrm.memory.spans import MemorySpans

    config, spans, arrangement, sizes = (
        [name for name in names if FLAGS[name].present]
        for names in (
            _CONFIG_FLAGS,
            ("spans",),
            _ARRANGEMENT_FLAGS,
            _SIZE_FLAGS,
        )
    )
    kinds = [names for names in (config, spans, arrangement) if names]
    if not kinds:
        raise ValueError(
            "give --experiment, --config_file, --spans or --num_layers."
        )
    if len(kinds) > 1 or (config and sizes):
        others = kinds[1] if len(kinds) > 1 else sizes
        raise ValueError(
            f"--{kinds[0][0]} and --{others[0]} do not go together: give a "
            "config, or spans, or an arrangement."
        )
    if config:
        return _of_config()
    if spans:
        lengths = command_line.parse_integers("spans", FLAGS.spans)
        chosen = MemorySpans(lengths)
    else:
        if FLAGS.num_layers is None:
            raise ValueError(f"--{arrangement[0]} needs --num_layers.")
        num_long = FLAGS.num_long
        chosen = MemorySpans.arrange(
            FLAGS.num_layers,
            FLAGS.num_layers if num_long is None else num_long,
            FLAGS.placement,
            FLAGS.long,
            FLAGS.short,
        )
    return chosen, FLAGS.hidden_size, _count(len(chosen))


def _of_config():
    from official_lrm.training import params as experiment_params

    params = experiment_params.parse_params(
        FLAGS.experiment or "lrm_enwik8",
        config_files=FLAGS.config_file,
        params_override=FLAGS.params_override,
    )
    return experiment_params.sizes(params)


def _count(num_layers):
    sizes = {name: FLAGS[name].value for name in _SIZE_FLAGS}
    if None in sizes.values():
        return None
    from official_lrm.models.parameter_count import count_parameters

    return count_parameters(num_layers=num_layers, **sizes)


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
