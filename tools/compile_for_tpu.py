r"""Compiles the steps of a config for TPUs, without a TPU.

    python tools/compile_for_tpu.py --topology=v3:4x4 --experiment=lrm_enwik8 \
        --config_file=configs/enwik8/lrm04_interleaved.yaml

For a core of the topology: HBM at the worst moment, temporaries, arguments,
FLOPs and bytes accessed for each token, and the time for each token that the
chip needs at the least for them (its roofline). Of the whole training step
("train": gradients summed over all cores, clipped and applied by Adam), of
forward and backward on one core ("gradients": its temporaries are activations,
but for those that lie where a gradient will be written later), and of the
evaluation step ("evaluate"). A program that does not fit is compiled again
rematerialized, with the gradient accumulated, in bfloat16, and with all of it,
until one fits.

    python tools/compile_for_tpu.py --sweep --with=rematerialize

The paper's table 1 beside what was published: 24, 12, 4, 1 and 0 long
memories, one lane a core.

Every figure is the compiler's. Nothing is run, and there may be no TPU of the
kind anywhere near: FLOPs and bytes are XLA's estimates, and a real step takes
longer than its roofline. Compiling takes minutes for each program. Needs
`pip install official_lrm[tpu-compile]`.
"""

if __name__ == "__main__":  # Before anything imports keras or jax.
    import tpu_environment

    tpu_environment.set_environment()

from absl import flags

from official_lrm import command_line

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "experiment", "lrm_enwik8", "Name of the experiment, as for train.py."
)
flags.DEFINE_multi_string(
    "config_file", [], "YAML file of overrides; may be given several times."
)
flags.DEFINE_string("params_override", None, "As for tools/train.py.")
flags.DEFINE_string(
    "topology",
    "v3:4x4",
    "Chip and shape: v2:2x2, v3:2x2 (4 chips, 8 cores), v3:4x4 (32 cores), "
    "v4:2x2x1, v5e:2x2, v5p:2x2x1, v6e:2x2 and larger ones.",
)
flags.DEFINE_list(
    "programs",
    None,
    "Of train, gradients and evaluate; all by default, gradients in a sweep.",
)
flags.DEFINE_integer(
    "lanes_per_core",
    None,
    "Lanes of each core, instead of global_batch_size over the cores; 1 by "
    "default in a sweep.",
    lower_bound=1,
)
flags.DEFINE_list(
    "with",
    [],
    "Compile each program also with these: rematerialize, accumulate (one "
    "lane after the other), bfloat16.",
)
flags.DEFINE_bool("sweep", False, "The paper's table 1.")
flags.DEFINE_string("output", None, "Write the figures as JSON too.")


def main():
    """Compiles and prints a table."""
    import tpu_environment

    tpu_environment.check_environment()
    import tpu_report

    from official_lrm.training import params as experiment_params

    params = experiment_params.parse_params(
        FLAGS.experiment,
        config_files=FLAGS.config_file,
        params_override=FLAGS.params_override,
    )
    default = ["gradients"] if FLAGS.sweep else tpu_report.PROGRAMS
    tpu_report.report(
        params,
        FLAGS.topology,
        programs=FLAGS.programs or default,
        lanes_per_core=FLAGS.lanes_per_core or (1 if FLAGS.sweep else None),
        also=FLAGS["with"].value,
        sweep=FLAGS.sweep,
        output=FLAGS.output,
        source={
            "experiment": FLAGS.experiment,
            "config_files": FLAGS.config_file,
            "params_override": FLAGS.params_override,
        },
    )


if __name__ == "__main__":
    command_line.run(main)
