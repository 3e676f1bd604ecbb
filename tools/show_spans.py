r"""Shows memory spans and what they cost: parameters, state, FLOPs.

Of a published run, or of any config (a second file shrinks it):

    python tools/show_spans.py --config_file=configs/enwik8/lrm24.yaml
    python tools/show_spans.py --config_file=configs/wikitext103/lrm18.yaml \
        --config_file=configs/local_tiny.yaml
    python tools/show_spans.py --experiment=lrm_quickstart \
        --params_override=task.model.spans.num_long=2

Of an arrangement, or of spans one by one; --hidden_size adds the state, all
five sizes add parameters and FLOPs:

    python tools/show_spans.py --num_layers=24 --num_long=4 --hidden_size=1024
    python tools/show_spans.py --num_layers=24 --long=3800 --hidden_size=1024
    python tools/show_spans.py --spans=128,0,2304 --hidden_size=1024 \
        --num_heads=8 --head_size=128 --inner_size=3072 --vocab_size=204

"all long" is the same model with the long span in every layer. State is that
of --batch_size lanes. FLOPs count two for each multiply-add of the matrix
products of a forward pass over a segment of T tokens, divided by its tokens.
"""

import dataclasses

from absl import flags

from official_lrm import command_line

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "experiment",
    None,
    "Name of a registered experiment, as for tools/train.py.",
)
flags.DEFINE_multi_string(
    "config_file",
    [],
    "YAML file of overrides, may be given several times; of lrm_enwik8 unless "
    "--experiment says otherwise. The files of configs/ say all that differs "
    "between experiments and need none.",
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
    ("hidden_size", "D; for the state's bytes."),
    ("num_heads", "N; with D and the three below, for parameters and FLOPs."),
    ("head_size", "H."),
    ("inner_size", "F."),
    ("vocab_size", "V."),
):
    flags.DEFINE_integer(
        _name, None, f"{_help} Not with a config.", lower_bound=1
    )
flags.DEFINE_bool(
    "untie_biases", False, "Attention biases of each layer. Not with a config."
)
flags.DEFINE_integer(
    "batch_size",
    1,
    "Lanes of the state; without a config, of the FLOPs too (a config's are "
    "those of its training).",
    lower_bound=1,
)
flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16", "float64"], "Of the state."
)
flags.DEFINE_integer(
    "segment_length",
    None,
    "T of the FLOPs, 1 = decoding; by default the config's training T, 384 "
    "without a config.",
    lower_bound=1,
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


@dataclasses.dataclass
class Described:
    """What the flags describe.

    spans: MemorySpans.
    long: span of the long layers, also where there are none.
    sizes: arguments of the model that shapes depend on; None = not known.
    num_lanes: B of the FLOPs.
    segment_length: T of the FLOPs.
    """

    spans: object
    long: int
    sizes: dict
    num_lanes: int
    segment_length: int


def main():
    """Prints the diagram and the figures."""
    from official_lrm.memory.spans import MemorySpans
    from official_lrm.models.cost_report import flop_table, state_table
    from official_lrm.models.parameter_count import count_parameters

    shown = described()
    spans, sizes = shown.spans, shown.sizes
    all_long = MemorySpans.arrange(len(spans), len(spans), long=shown.long)
    print(spans.diagram())
    if sizes["hidden_size"]:
        print()
        print(
            state_table(
                spans,
                all_long,
                sizes["hidden_size"],
                batch_size=FLAGS.batch_size,
                dtype=FLAGS.dtype,
                test_long=FLAGS.test_long,
            )
        )
    if None in [sizes[name] for name in _SIZE_FLAGS]:
        return
    parameters = count_parameters(len(spans), **sizes)
    print(f"\nparameters: {parameters:,} (the same for any spans)\n")
    print(
        flop_table(
            spans, all_long, shown.segment_length, shown.num_lanes, **sizes
        )
    )


def described() -> Described:
    """Reads the flags.

    Raises:
        ValueError: if they describe nothing, or two things.
    """
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
    return _of_flags(arrangement)


def _of_config():
    from official_lrm.configs.settings import resolve
    from official_lrm.training.params import parse_params

    params = parse_params(
        FLAGS.experiment or "lrm_enwik8",
        config_files=FLAGS.config_file,
        params_override=FLAGS.params_override,
    )
    settings = resolve(params)
    sizes = dict(settings.model)
    spans = sizes.pop("spans")
    config = params.task.model.spans
    return Described(
        spans,
        config.long if config.lengths is None else max(spans),
        sizes,
        settings.train.num_lanes,
        FLAGS.segment_length or settings.train.segment_length,
    )


def _of_flags(arrangement):
    from official_lrm.memory.spans import MemorySpans

    if FLAGS.spans is not None:
        lengths = command_line.parse_integers("spans", FLAGS.spans)
        spans = MemorySpans(lengths)
        long = max(spans)
    else:
        if FLAGS.num_layers is None:
            raise ValueError(f"--{arrangement[0]} needs --num_layers.")
        num_long, long = FLAGS.num_long, FLAGS.long
        spans = MemorySpans.arrange(
            FLAGS.num_layers,
            FLAGS.num_layers if num_long is None else num_long,
            FLAGS.placement,
            long,
            FLAGS.short,
        )
    return Described(
        spans,
        long,
        {name: FLAGS[name].value for name in _SIZE_FLAGS},
        FLAGS.batch_size,
        FLAGS.segment_length or 384,
    )


if __name__ == "__main__":
    command_line.run(main)
