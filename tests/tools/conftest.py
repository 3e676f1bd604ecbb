"""Tools as subprocesses and in the process, and one trained run of them."""

import importlib.util
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import types

import keras
import pytest
from absl import app, flags, logging
from absl.testing import flagsaver

from official_lrm import command_line

ROOT = pathlib.Path(__file__).resolve().parents[2]

# T = 7, 2 lanes, 3 layers; D, N, H, F as in the tests of the models.
TINY = {
    "task.model.num_layers": 3,
    "task.model.hidden_size": 14,
    "task.model.num_heads": 3,
    "task.model.head_size": 5,
    "task.model.inner_size": 17,
    "task.model.spans.long": 23,
    "task.model.spans.short": 5,
    "task.train_data.global_batch_size": 2,
    "task.train_data.segment_length": 7,
    "task.validation_data.global_batch_size": 2,
    "task.validation_data.segment_length": 7,
    "trainer.train_steps": 4,
    # The cosine must not depend on where a run ends.
    "trainer.optimizer_config.learning_rate.cosine.decay_steps": 101,
    "trainer.optimizer_config.learning_rate.cosine.offset": 0,
    "trainer.optimizer_config.warmup.linear.warmup_steps": 0,
    "trainer.steps_per_loop": 2,
    "trainer.summary_interval": 2,
    "trainer.checkpoint_interval": 2,
    "trainer.validation_interval": 4,
    "trainer.validation_steps": 3,
}

# What TensorFlow's C++ writes: the absence of a GPU, the CPU's features.
_CPP_LOG = re.compile(
    r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWEF] "
    r"|[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ |[IWEF]0000 00:00:"
    r"|WARNING: All log messages before absl::InitializeLog"
    r"|To enable the following instructions:|\t \[\[\{\{)"
)


def without_cpp_log(text):
    lines = [line for line in text.splitlines() if not _CPP_LOG.match(line)]
    return "\n".join(lines)


def overrides(**changes):
    """Value of --params_override: TINY with changes (None: left out)."""
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    values = {**TINY, **changes}
    return ",".join(
        f"{key}={value}" for key, value in values.items() if value is not None
    )


# Where tests run in the background, a shell has SIGINT ignored, and so would
# the tools; what is handled here is at its default there. `preexec_fn` would
# do as well, but makes subprocess call fork(), whose handlers abort the child
# when gRPC's threads are busy; without it, it calls vfork().
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def start(tool, *arguments):
    """Starts a tool in a process of its own."""
    path = os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    )
    return subprocess.Popen(
        [sys.executable, ROOT / tool, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
        encoding="utf-8",
    )


def finish(process):
    stdout, stderr = process.communicate(timeout=600)
    return types.SimpleNamespace(
        status=process.returncode,
        stdout=stdout,
        stderr=without_cpp_log(stderr),
    )


@pytest.fixture(scope="session")
def start_tool():
    return start


@pytest.fixture(scope="session")
def finish_tool():
    return finish


@pytest.fixture(scope="session")
def run_tool():
    """Runs a tool in a process of its own."""
    return lambda tool, *arguments: finish(start(tool, *arguments))


@pytest.fixture
def call_tool(monkeypatch, capsys):
    """Runs a tool's `main` in this process, which is five seconds faster.

    absl parses a process's flags once and two tools may not define one flag,
    so a tool's flags are defined for the one call.
    """

    def call(tool, *arguments):
        FLAGS = flags.FLAGS
        before, verbosity = set(FLAGS), logging.get_verbosity()
        policy = keras.config.dtype_policy()
        path = ROOT / tool
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        own = set(FLAGS) - before
        argv = [str(path), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", argv)
        # As for a script, whose folder is where it imports from.
        monkeypatch.syspath_prepend(path.parent)

        def run(main, flags_parser):
            sys.exit(main(flags_parser(argv)))

        monkeypatch.setattr(app, "run", run)
        capsys.readouterr()
        try:
            with (
                flagsaver.flagsaver(),
                pytest.raises(SystemExit) as caught,
            ):
                command_line.run(module.main)
        finally:
            for name in own:
                delattr(FLAGS, name)
            FLAGS.unparse_flags()
            logging.set_verbosity(verbosity)
            keras.config.set_dtype_policy(policy)
        stdout, stderr = capsys.readouterr()
        return types.SimpleNamespace(
            status=caught.value.code,
            stdout=stdout,
            stderr=without_cpp_log(stderr),
        )

    return call


@pytest.fixture
def refusal(call_tool):
    """The one line that a tool refuses its arguments with."""

    def refuse(tool, *arguments):
        result = call_tool(tool, *arguments)
        assert result.status == 1
        assert "Traceback" not in result.stderr
        (line,) = result.stderr.splitlines()
        name = pathlib.Path(tool).name
        assert line.startswith(f"{name}: error: ")
        return line.removeprefix(f"{name}: error: ")

    return refuse


@pytest.fixture(scope="session")
def text_file(tmp_path_factory):
    """20 kB of words."""
    words = "the memory of a layer reaches back so far that none is lost"
    rng = random.Random(7)
    text = " ".join(rng.choice(words.split()) for _ in range(5003))
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def train_flags(text_file):
    """Returns flags(**changes of TINY) of tools/train.py but --model_dir."""

    def train_flags(**changes):
        corpus = {
            "task__corpus__name": "text",
            "task__corpus__input_path": text_file,
        }
        return (
            "--experiment=lrm_quickstart",
            f"--params_override={overrides(**{**corpus, **changes})}",
        )

    return train_flags


@pytest.fixture(scope="session")
def trained(train_flags, tmp_path_factory):
    """A run that tools/train.py made, and what it printed. Leave it as is."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    process = start("tools/train.py", *train_flags(), f"--model_dir={path}")
    result = finish(process)
    return types.SimpleNamespace(
        path=path, preset=path / "preset", **vars(result)
    )


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory):
    """An export of it by export/export_saved_model.py, and what it printed."""
    path = tmp_path_factory.mktemp("exports") / "tiny"
    process = start(
        "export/export_saved_model.py",
        f"--model={trained.path}",
        f"--export_dir={path}",
    )
    return types.SimpleNamespace(path=path, **vars(finish(process)))


@pytest.fixture
def run_copy(trained, tmp_path):
    """A copy of the run that may be changed."""
    return shutil.copytree(trained.path, tmp_path / "copy")


@pytest.fixture
def damaged_run(run_copy):
    """A run whose newest checkpoint was cut short, as by a full disk."""
    data = run_copy / "ckpt-4.data-00000-of-00001"
    content = data.read_bytes()
    data.write_bytes(content[: len(content) // 2])
    return run_copy
