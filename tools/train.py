r"""Trains a Transformer-XL with a memory length per layer.

    python tools/train.py --experiment=lrm_quickstart --model_dir=runs/first

    python tools/train.py --experiment=lrm_enwik8 --model_dir=runs/enwik8 \
        --config_file=configs/enwik8/lrm04_interleaved.yaml

The config is the experiment's, then each --config_file, then
--params_override. Run it again with the same --model_dir to go on from the
newest checkpoint. The model_dir holds checkpoints with the memories,
TensorBoard summaries (train/, validation/), params.yaml, tokenizer.json, best/,
the weights of the best evaluation as a preset, and at the end preset/, the last
weights as one. --mode=continuous_eval evaluates, in a process of its own, what
--mode=train writes.
"""

import os

from absl import flags

from official_lrm import command_line

MODES = ("train", "eval", "train_and_eval", "continuous_eval")

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "experiment",
    None,
    "Name of the experiment: lrm_quickstart (the interpreter's own library, "
    "minutes on two cores), lrm_wikitext2 (words, the same), lrm_enwik8, "
    "lrm_text8 (the paper's 24 layers) or lrm_wikitext103 (its 18).",
)
flags.DEFINE_multi_string(
    "config_file", [], "YAML file of overrides; may be given several times."
)
flags.DEFINE_string(
    "params_override",
    None,
    "YAML, or a.b.c=value pairs separated by commas; overrides the files.",
)
flags.DEFINE_string(
    "model_dir", None, "Folder for everything that the run writes."
)
flags.DEFINE_enum("mode", "train_and_eval", MODES, "What to do.")
flags.DEFINE_string(
    "tpu", None, "Name or address of the TPU; sets runtime.tpu."
)
flags.DEFINE_string(
    "init_from",
    None,
    "Preset folder whose weights to start from (fine-tuning). A checkpoint "
    "in --model_dir goes before it.",
)
flags.DEFINE_bool(
    "deterministic",
    False,
    "Use deterministic ops only: a resumed run then equals an uninterrupted "
    "one bit for bit on the same kind of machine. Slower.",
)
flags.DEFINE_bool("dry_run", False, "Show what would be trained and stop.")


def main():
    """Trains, or shows what would be trained."""
    from official_lrm.training import experiment
    from official_lrm.training import params as experiment_params

    params = experiment_params.parse_params(
        FLAGS.experiment,
        config_files=FLAGS.config_file,
        params_override=FLAGS.params_override,
        tpu=FLAGS.tpu,
        init_from=FLAGS.init_from,
    )
    print(experiment_params.describe(params))
    if FLAGS.dry_run:
        print(experiment.check_run(params, FLAGS.mode))
        return
    if not FLAGS.model_dir:
        raise ValueError("--model_dir must be given.")
    if FLAGS.deterministic:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    trainer = experiment.run_experiment(params, FLAGS.mode, FLAGS.model_dir)
    if "train" in FLAGS.mode and not trainer.stopped:
        preset = os.path.join(FLAGS.model_dir, experiment.PRESET_FOLDER)
        print(f"trained model: {preset}")


if __name__ == "__main__":
    command_line.run(main)
