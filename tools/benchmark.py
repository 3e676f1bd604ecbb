r"""Measures training, scoring, the input of a run, or an export.

    python tools/benchmark.py input --experiment=lrm_quickstart
    python tools/benchmark.py input --experiment=lrm_wikitext2 \
        --params_override=task.corpus.input_path=wikitext-2
    python tools/benchmark.py train --peer_python=PYTHON
    python tools/benchmark.py train --table=growth --plot=growth.svg
    python tools/benchmark.py score
    python tools/benchmark.py serve
    python tools/benchmark.py serve --table=decode --peer_python=PYTHON
    python tools/benchmark.py serve --table=wire

`input` tokenizes the split that is trained on into an empty cache, takes it
from the cache again, reads batches, and trains for a few steps.

`train` times training steps of random tokens, dropout and Adam in them. Rows
are processes that take their steps in turns. Its tables:

    peers     6 layers of 512: full memory and 1 of 6 long, in float32 and
              mixed_bfloat16, and rematerialized, beside Model Garden's
              TransformerXL and Hugging Face's TransfoXL. --peer_python is an
              interpreter of an environment with the [benchmark] extra
    depth     24 layers of 256, one lane: 24 and 4 long memories of 2304
    growth    the step's time and memory against the number of long memories,
              their length, T, lanes and layers

GFLOP is what a step's matrix products need at the least: three times the
forward pass's, without the gradients of memories and of tables of positions,
all keys of a segment counted for every query. The ceiling is a product of
2048-cubed matrices, timed in the same turns; the peak is a process's resident
memory, and "import" what it held before there was a model.

`score` scores a text of --tokens random tokens in one lane, under
same_length with 6 memories of --span, in segments of 512 to 8192: a token's
cost does not grow with its segment.

`serve` exports models of random weights and calls them. Its tables:

    latency   12 layers of 512, full memory and 2 of 12 long: a token's latency
              and tokens/s in the process, from C++, over gRPC with carried and
              with resident state, and bytes on the wire
    decode    the same models, a token of one long call of `generate`, beside
              the least time that memory allows; --peer_python is an
              interpreter of an environment with torch and transformers 4.35.2,
              whose TransfoXL then takes its turns
    wire      the 24 layers of the paper's enwik8 model, full memory and 4 long
              in three dtypes: bytes and round trip of a request of one token
              (takes minutes and 10 GB of memory)

The server is this repository's Python one, on the same machine; TensorFlow
Serving's is another. Figures depend on what else the machine does: compare
those of one call only.
"""

import tempfile
import time

from absl import flags

from official_lrm import command_line

FLAGS = flags.FLAGS
flags.DEFINE_string("experiment", None, "input: as for tools/train.py.")
flags.DEFINE_multi_string("config_file", [], "input: as for tools/train.py.")
flags.DEFINE_string("params_override", None, "input: as for tools/train.py.")
flags.DEFINE_integer("batches", 500, "input: batches to read.", lower_bound=1)
flags.DEFINE_integer(
    "train_steps",
    20,
    "input: steps of training to time; 0 = none.",
    lower_bound=0,
)
TABLES = {
    "train": ["peers", "depth", "growth"],
    "serve": ["latency", "decode", "wire"],
}
flags.DEFINE_enum(
    "table",
    None,
    [name for names in TABLES.values() for name in names],
    "train, serve: what to measure; the first of its tables by default.",
)
flags.DEFINE_integer(
    "repeats",
    None,
    "train: steps of each row, 9; score: times that the text is scored, 3.",
    lower_bound=1,
)
flags.DEFINE_integer(
    "tokens", 100_000, "score: of the text.", lower_bound=16_384
)
flags.DEFINE_integer(
    "span", 128, "score: length of each memory.", lower_bound=0
)
flags.DEFINE_float(
    "dropout", 0.1, "train: rate, but on attention probabilities."
)
flags.DEFINE_string("output", None, "train: write the figures as JSON too.")
flags.DEFINE_string(
    "plot", None, "train, growth: draw the figures too, as .svg, .png or .pdf."
)
flags.DEFINE_integer(
    "tokens_per_call",
    None,
    "serve: tokens that one call generates; 16, or 64 for the decode table.",
    lower_bound=1,
)
flags.DEFINE_integer(
    "calls", None, "serve: calls of each row; 20, or 5.", lower_bound=1
)
flags.DEFINE_enum(
    "dtype",
    "float32",
    ["float32", "bfloat16"],
    "score; serve, latency: of weights and arithmetic.",
)
flags.DEFINE_enum(
    "memory_format",
    "hidden",
    ["hidden", "key_value"],
    "serve, latency: what memories hold.",
)
flags.DEFINE_enum(
    "memory_dtype",
    None,
    ["float32", "bfloat16", "int8"],
    "serve, latency: what memories are kept in; as `dtype` by default.",
)
flags.DEFINE_string(
    "peer_python",
    None,
    "train and serve --table=decode: the peer's interpreter.",
)


def measure_input():
    """Prints what a run's input costs, beside its training."""
    import keras
    import tensorflow as tf
    from official.core import task_factory
    from peak_memory import peak_memory

    from official_lrm.configs.settings import resolve
    from official_lrm.training import experiment
    from official_lrm.training import params as experiment_params

    params = experiment_params.parse_params(
        FLAGS.experiment,
        config_files=FLAGS.config_file,
        params_override=FLAGS.params_override,
    )
    settings = resolve(params)
    keras.config.set_dtype_policy(settings.dtype_policy)
    with tempfile.TemporaryDirectory() as cache:
        params.task.corpus.cache_dir = cache
        task = task_factory.get_task(params.task)
        tf.random.normal([1])  # TensorFlow itself starts here.
        framework = peak_memory()
        print(f"corpus:    {task.corpus.description}")
        seconds, tokenizer = timed(lambda: task.tokenizer)
        print(f"tokenizer: {tokenizer!r}, {seconds:.2f} s")
        seconds, lanes = timed(task.training_lanes)
        print(
            f"tokenize:  {lanes.num_tokens:,} tokens in {seconds:.2f} s, "
            f"{lanes.num_tokens / seconds:,.0f} tokens/s"
        )
        again = task_factory.get_task(params.task)
        seconds, _ = timed(again.training_lanes)
        print(f"cached:    {seconds:.2f} s")
        dataset = task.build_inputs(params.task.train_data)
        batches = iter(dataset)
        next(batches)
        seconds, _ = timed(
            lambda: [next(batches) for _ in range(FLAGS.batches)]
        )
        tokens = lanes.num_lanes * lanes.segment_length
        input_rate = FLAGS.batches * tokens / seconds
        print(f"input:     {input_rate:,.0f} tokens/s")
        print(
            f"memory:    {peak_memory() - framework:,.0f} MiB at the peak, "
            f"beyond the {framework:,.0f} MiB of the framework"
        )
        if FLAGS.train_steps:
            trainer = experiment.build_trainer(params, settings, task, "train")
            trainer.train(tf.constant(1))  # Traces.
            seconds, _ = timed(
                lambda: trainer.train(tf.constant(FLAGS.train_steps))
            )
            trainer.close_progress()
            rate = FLAGS.train_steps * tokens / seconds
            print(
                f"training:  {rate:,.0f} tokens/s; input is "
                f"{input_rate / rate:,.0f} times as fast"
            )


def table_of(command) -> str:
    """The table that was asked for.

    Raises:
        ValueError: if it is none of the command's.
    """
    table = FLAGS.table or TABLES[command][0]
    if table not in TABLES[command]:
        raise ValueError(
            f"--table of {command} must be one of "
            f"{', '.join(TABLES[command])}; got {table}."
        )
    return table


def measure_training():
    """Prints a table of training steps."""
    import growth_plot
    import training_benchmark
    from json_output import check_output, write_output

    table = table_of("train")
    training_benchmark.check_peer_python(FLAGS.peer_python)
    if not 0 <= FLAGS.dropout < 1:
        raise ValueError(
            f"--dropout must be from 0 to below 1; got {FLAGS.dropout}."
        )
    check_output(FLAGS.output)
    if FLAGS.plot and table != "growth":
        raise ValueError(f"--plot goes with --table=growth; got {table}.")
    growth_plot.check_path(FLAGS.plot)
    if table == "growth":
        groups = training_benchmark.growth_rows(FLAGS.dropout)
    else:
        rows_of = {
            "peers": training_benchmark.peer_rows,
            "depth": training_benchmark.deep_rows,
        }
        groups = {"": dict(enumerate(rows_of[table](FLAGS.dropout)))}
    results = []
    for name, rows in groups.items():
        measured, ceilings = training_benchmark.compare(
            list(rows.values()), FLAGS.repeats or 9, FLAGS.peer_python
        )
        results.append({"group": name, "rows": measured, "ceilings": ceilings})
        for line in training_benchmark.ceiling_lines(ceilings):
            print(line)
        print(training_benchmark.HEADER)
        if table == "growth":
            for value, row in zip(rows, measured, strict=True):
                row["row"], row["value"] = f"{name}: {value}", value
        for row in measured:
            print(training_benchmark.line_of(row))
        if table != "growth":
            for line in training_benchmark.ratio_lines(measured):
                print(line)
        print(flush=True)
        write_output(FLAGS.output, results)
    if FLAGS.plot:
        growth_plot.plot(results, FLAGS.plot)


def measure_scoring():
    """Prints a table of tokens/s by segment length."""
    import scoring_benchmark
    import training_benchmark

    for line in scoring_benchmark.rows(
        training_benchmark.SIZES_P,
        FLAGS.span,
        FLAGS.tokens,
        FLAGS.repeats or 3,
        FLAGS.dtype,
    ):
        print(line, flush=True)


def measure_serving():
    """Prints a table of an export's speed."""
    import serving_benchmark

    table = table_of("serve")
    if table == "latency":
        lines = serving_benchmark.serve_rows(
            {
                "dtype": FLAGS.dtype,
                "memory_format": FLAGS.memory_format,
                "memory_dtype": FLAGS.memory_dtype,
            },
            FLAGS.tokens_per_call or 16,
            FLAGS.calls or 20,
        )
    elif table == "decode":
        lines = serving_benchmark.decode_rows(
            ["float32", "bfloat16"],
            FLAGS.tokens_per_call or 64,
            FLAGS.calls or 5,
            FLAGS.peer_python,
        )
    else:
        lines = serving_benchmark.wire_rows(FLAGS.calls or 5)
    for line in lines:
        print(line, flush=True)


def timed(function):
    """Returns the seconds that a call took, and its result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


main = {
    "input": measure_input,
    "train": measure_training,
    "score": measure_scoring,
    "serve": measure_serving,
}

if __name__ == "__main__":
    command_line.run(main)
