r"""Trains, evaluates, exports and samples a small model on real text.

    python tools/quickstart.py
    python tools/quickstart.py --steps=200 --run_dir=runs/short

Everything goes to --run_dir; a run that was interrupted goes on where it
stopped. The text is the interpreter's own library sources.
"""

import os
import sys

from absl import flags

from official_lrm import command_line

FLAGS = flags.FLAGS
flags.DEFINE_string("run_dir", "runs/quickstart", "Folder for the run.")
flags.DEFINE_integer(
    "steps", None, "Training steps; 2000 by default.", lower_bound=1
)
flags.DEFINE_integer("characters", 400, "Characters to write.", lower_bound=1)
flags.DEFINE_integer(
    "max_tokens", None, "Validation characters to score; all by default."
)

_CONFIG = os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
    "configs",
    "quickstart.yaml",
)


def main():
    """Runs the four steps and prints the closing table."""
    from official_lrm import serving, training
    from official_lrm.serving import text_stream
    from official_lrm.training import evaluation_report

    override = f"trainer.train_steps={FLAGS.steps}" if FLAGS.steps else None
    params = training.parse_params(
        "lrm_quickstart", config_files=[_CONFIG], params_override=override
    )
    run_dir = FLAGS.run_dir
    exports = os.path.join(run_dir, "export")

    _step(
        1,
        "train",
        f"tools/train.py --experiment=lrm_quickstart "
        f"--config_file=configs/quickstart.yaml --model_dir={run_dir}",
    )
    trainer = training.run_experiment(params, "train_and_eval", run_dir)

    _step(2, "evaluate", f"tools/evaluate.py --model={run_dir} --lanes=8")
    result = evaluation_report.report(
        run_dir, lanes=8, max_tokens=FLAGS.max_tokens, decode_tokens=1000
    )[0]

    _step(
        3,
        "export",
        f"export/export_saved_model.py --model={run_dir} "
        f"--export_dir={exports}",
    )
    model = training.load_model(run_dir)
    path = serving.export_saved_model(
        model, exports, tokenizer=training.read_tokenizer(run_dir)
    )
    print(f"exported: {path}")

    _step(
        4,
        "write through the export",
        f"tools/generate.py --model={exports} "
        f"--prompt='def ' --max_new_tokens={FLAGS.characters}",
    )
    rate = text_stream.write_text(
        *text_stream.open_generator(path),
        b"def ",
        sys.stdout,
        max_new_tokens=FLAGS.characters,
        temperature=0.7,
    )
    print(summary(model, result, trainer.tokens_per_second, rate, run_dir))


def summary(model, result, training_rate, writing_rate, run_dir) -> str:
    """The closing table.

    Args:
        model: the trained model.
        result: EvaluationResult of the validation split.
        training_rate: characters a second, None if nothing was trained.
        writing_rate: characters a second, 0 if too few were written.
        run_dir: where the run is.
    """
    from official_lrm.memory.spans import MemorySpans

    spans, hidden_size = model.spans, model.hidden_size
    full = MemorySpans([max(spans)] * len(spans))
    state, full_state = (
        value.state_bytes(hidden_size) / 2**20 for value in (spans, full)
    )
    trained, written = (
        f"{rate:,.0f} characters/s" if rate else "-"
        for rate in (training_rate, writing_rate)
    )
    rows = [
        ("parameters", f"{model.count_params():,}, whatever the spans"),
        (
            "state a lane",
            f"{state:.2f} MiB; with full memory {full_state:.2f} MiB "
            f"({full_state / state:.1f}x)",
        ),
        (
            "validation",
            f"{result.bits_per_token:.3f} bpc over {result.tokens:,} "
            f"characters (T={result.segment_length}, {result.lanes} lanes)",
        ),
        ("training", trained),
        ("generation", written),
    ]
    lines = ["", "=" * 72, spans.diagram(), ""]
    lines += [f"{name:<14}{text}" for name, text in rows]
    lines += [
        "",
        "Try next (in the environment: source .venv/bin/activate):",
        f"  python tools/generate.py --model={run_dir}/export "
        "--prompt='import '",
        f"  python tools/evaluate.py --model={run_dir} --lanes=8 "
        "--long_memory=0,64,384,768",
        f"  python tools/evaluate.py --model={run_dir} --lanes=8 "
        "--num_long=6 --long=384",
        "  python tools/train.py --experiment=lrm_quickstart "
        "--model_dir=runs/first_layer \\",
        "      --params_override=task.model.spans.placement=first",
        f"  tensorboard --logdir={run_dir}",
    ]
    return "\n".join(lines)


def _step(number, title, command):
    print(f"\n[{number}/4] {title}  (as: python {command})", flush=True)


if __name__ == "__main__":
    command_line.run(main)
