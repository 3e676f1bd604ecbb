"""Kills a training run again and again, and compares it with one left alone.

    python tools/chaos.py --kills=20 --steps=300

Two runs of tools/train.py with the same config, dropout on and deterministic
ops: one is left alone, the other is killed with SIGKILL at random moments
(while it starts, trains, evaluates or saves) and started again each time. At
the end every variable of model and optimizer, every memory, the record of the
best evaluation and every loss that was logged on the way must be the same, bit
for bit. Exits with 1 if one is not.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time

from absl import flags

from official_lrm import command_line
from official_lrm.training.checkpoint_files import checkpoint_steps

FLAGS = flags.FLAGS
flags.DEFINE_integer("kills", 20, "How often the run is killed.", lower_bound=1)
flags.DEFINE_integer("steps", 300, "Steps of the run.", lower_bound=10)
flags.DEFINE_integer("seed", 0, "Of the moments of the kills.")
flags.DEFINE_string(
    "folder", None, "Where the two runs go; by default a temporary folder."
)

# Small, but with what a run has: uneven spans, documents, evaluations, and
# checkpoints often enough that some kills meet one.
_CONFIG = """
task:
  model:
    num_layers: 4
    hidden_size: 64
    num_heads: 4
    head_size: 16
    inner_size: 128
    dropout: 0.1
    attention_dropout: 0.1
    spans: {{lengths: [16, 0, 64, 16]}}
  train_data: {{global_batch_size: 8, segment_length: 32}}
  validation_data: {{global_batch_size: 8, segment_length: 32}}
trainer:
  train_steps: {steps}
  steps_per_loop: 5
  summary_interval: 5
  checkpoint_interval: 5
  validation_interval: 50
  validation_steps: 20
"""

_POLL_SECONDS = 0.01


def main():
    """Runs both, compares, and says so."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = FLAGS.folder or scratch
        alone = os.path.join(folder, "alone")
        killed = os.path.join(folder, "killed")
        for path in (alone, killed):
            if os.path.exists(path):
                raise ValueError(f"--folder holds a run already: {path}")
        os.makedirs(folder, exist_ok=True)
        config = os.path.join(folder, "chaos.yaml")
        with open(config, "w") as stream:
            stream.write(_CONFIG.format(steps=FLAGS.steps))
        start_seconds, step_seconds = _run_alone(config, alone)
        _run_killed(config, killed, start_seconds, step_seconds)
        import run_comparison

        print(run_comparison.compare_runs(alone, killed, FLAGS.steps))


def _start(config, model_dir):
    log = open(f"{model_dir}.log", "a")  # noqa: SIM115
    with log:
        return subprocess.Popen(
            [
                sys.executable,
                os.path.join(os.path.dirname(__file__), "train.py"),
                "--experiment=lrm_quickstart",
                f"--config_file={config}",
                f"--model_dir={model_dir}",
                "--deterministic",
            ],
            stdout=log,
            stderr=log,
        )


def _finish(process, model_dir):
    if process.wait():
        with open(f"{model_dir}.log") as stream:
            last = stream.read().strip().splitlines()[-1:]
        raise ValueError(
            f"the run in {model_dir} ended with {process.returncode}: {last}"
        )


def _saved_step(model_dir):
    return max(checkpoint_steps(model_dir), default=0)


def _run_alone(config, model_dir):
    """Returns the seconds to the first checkpoint, and those of a step."""
    begun = time.monotonic()
    process = _start(config, model_dir)
    while not _saved_step(model_dir) and process.poll() is None:
        time.sleep(_POLL_SECONDS)
    first, step = time.monotonic(), _saved_step(model_dir)
    _finish(process, model_dir)
    seconds = (time.monotonic() - first) / max(1, FLAGS.steps - step)
    print(
        f"alone:  {FLAGS.steps} steps, {first - begun:.1f} s to the first "
        f"checkpoint, {1000 * seconds:.0f} ms a step",
        flush=True,
    )
    return first - begun, seconds


def _run_killed(config, model_dir, start_seconds, step_seconds):
    moments = random.Random(FLAGS.seed)
    share = FLAGS.steps / (FLAGS.kills + 1)
    for kill in range(FLAGS.kills):
        begun, before = time.monotonic(), _saved_step(model_dir)
        process = _start(config, model_dir)

        def saved_more(process=process, before=before):
            return _saved_step(model_dir) > before or process.poll() is not None

        # While it starts, or anywhere in twice its share of the steps; but
        # it must not get to the end before the last kill.
        if moments.random() < 0.25:
            _wait(moments.uniform(0, start_seconds), saved_more)
        else:
            _wait(600, saved_more)
            limit = share * (kill + 1)
            _wait(
                moments.uniform(0, 2 * share * step_seconds),
                lambda limit=limit: _saved_step(model_dir) > limit,
            )
        if process.poll() is not None:
            _finish(process, model_dir)
            raise ValueError(
                f"the run ended before kill {kill + 1} of {FLAGS.kills}; take "
                "more --steps or fewer --kills."
            )
        process.send_signal(signal.SIGKILL)
        process.wait()
        print(
            f"kill {kill + 1:2}: after {time.monotonic() - begun:5.1f} s, "
            f"step {before} -> {_saved_step(model_dir)} saved",
            flush=True,
        )
    begun = time.monotonic()
    _finish(_start(config, model_dir), model_dir)
    print(f"killed: ran to its end in {time.monotonic() - begun:.1f} s")


def _wait(seconds, condition):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not condition():
        time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    command_line.run(main)
