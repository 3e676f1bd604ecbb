r"""Measures what a run's input costs, beside its training.

    python tools/benchmark.py --experiment=lrm_quickstart
    python tools/benchmark.py --experiment=lrm_wikitext2 \
        --params_override=task.corpus.input_path=wikitext-2

Tokenizes the split that is trained on into an empty cache, takes it from the
cache again, reads batches, and trains for a few steps. Figures depend on what
else the machine does: compare those of one call only.
"""

import resource
import tempfile
import time

from absl import flags

from official_lrm import command_line

FLAGS = flags.FLAGS
flags.DEFINE_string("experiment", None, "As for tools/train.py.")
flags.DEFINE_multi_string("config_file", [], "As for tools/train.py.")
flags.DEFINE_string("params_override", None, "As for tools/train.py.")
flags.DEFINE_integer("batches", 500, "Batches to read.", lower_bound=1)
flags.DEFINE_integer(
    "train_steps", 20, "Steps of training to time; 0 = none.", lower_bound=0
)


def main():
    """Prints the figures."""
    import keras
    import tensorflow as tf
    from official.core import task_factory

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


def timed(function):
    """Returns the seconds that a call took, and its result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def peak_memory() -> float:
    """The most memory that the process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    command_line.run(main)
