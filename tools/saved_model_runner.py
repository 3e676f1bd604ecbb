"""Calls an export in TensorFlow's C++ runtime, where no Python takes part.

```python
runner = compile_runner(folder)
calls = [Call("serving_default", {"tokens": prompt})]
calls += [Call("predict", {"tokens": token}, outputs=["logits"])] * 100
results = run_calls(runner, "exports/first/1", calls).results
results[-1].outputs["logits"], results[-1].microseconds
```

The memories that `predict` takes are the outputs of the call before: an input
that a call leaves out is fed from there, without a copy. The other half is
saved_model_runner.cc.
"""

import collections
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

SOURCE = pathlib.Path(__file__).with_suffix(".cc")


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a signature.

    Attributes:
        signature: its name.
        inputs: name -> array of the signature's dtype. One that is left out
            is the output of that name of the last call of the stream that
            succeeded, or else the signature's default.
        outputs: names of those to return. All are computed.
        stream: calls of a stream are made in their order, streams at once,
            each in a thread of its own.
        may_fail: whether a failure is a result; else it ends the program.
    """

    signature: str
    inputs: dict = dataclasses.field(default_factory=dict)
    outputs: collections.abc.Sequence[str] = ()
    stream: int = 0
    may_fail: bool = False


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of a call.

    Attributes:
        outputs: name -> array, of those that were asked for.
        microseconds: of the session's run alone; 0 if it was not reached. A
            signature's first call includes what the runtime prepares for it.
        status: name of the status code: "OK", "INVALID_ARGUMENT", …
        message: of the status.
    """

    outputs: dict[str, np.ndarray]
    microseconds: int
    status: str
    message: str


@dataclasses.dataclass(frozen=True)
class Run:
    """What came of a run of the program.

    Attributes:
        results: a Result for each call, in the order of the calls.
        load_seconds: for the SavedModel, variables and initialization
            included.
    """

    results: list[Result]
    load_seconds: float


def find_compiler() -> str | None:
    """Returns the path of a C++ compiler, None where there is none."""
    return shutil.which("g++") or shutil.which("c++")


def compile_runner(folder) -> str:
    """Compiles the program against the installed TensorFlow, in 12 seconds.

    Args:
        folder: where to put it. It serves for this installation only.

    Returns:
        Its path.

    Raises:
        FileNotFoundError: if there is no C++ compiler.
        RuntimeError: if it refuses the source.
    """
    compiler = find_compiler()
    if compiler is None:
        raise FileNotFoundError("no C++ compiler: neither g++ nor c++.")
    path = os.path.join(folder, SOURCE.stem)
    command = [
        compiler,
        "-O2",
        "-w",
        # As TensorFlow itself was compiled.
        "-DNDEBUG",
        *tf.sysconfig.get_compile_flags(),
        str(SOURCE),
        "-o",
        path,
        # Kernels register themselves; nothing refers to them.
        "-Wl,--no-as-needed",
        *tf.sysconfig.get_link_flags(),
        "-l:libtensorflow_cc.so.2",
        f"-Wl,-rpath,{tf.sysconfig.get_lib()}",
        "-lpthread",
    ]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(f"{compiler} failed:\n{done.stderr}")
    return path


def run_calls(runner, saved_model_dir, calls, threads=0, libraries=()) -> Run:
    """Loads a SavedModel, calls it, and ends the process.

    Args:
        runner: path that `compile_runner` returned.
        saved_model_dir: the folder of one version.
        calls: Calls.
        threads: size of the session's pools, of threads within an operation
            and of operations at once; 0 = one thread per core.
        libraries: paths of shared libraries with operations that are not
            TensorFlow's own, such as `sentencepiece_library()`.

    Returns:
        A Run.

    Raises:
        ValueError: with the status code's name and message, if the SavedModel
            cannot be loaded or a call fails that may not.
        RuntimeError: if the program crashes.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, name) for name in ("calls", "results")]
        with tf.io.TFRecordWriter(files[0]) as writer:
            for call in calls:
                writer.write(_example(call).SerializeToString())
        done = subprocess.run(
            [runner, saved_model_dir, *files, str(threads), *libraries],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        if done.returncode:
            raise _error(done)
        results = [
            _result(record.numpy())
            for record in tf.data.TFRecordDataset(files[1])
        ]
    return Run(results, **json.loads(done.stdout))


def sentencepiece_library() -> str:
    """The path of the operations that a SentencePiece tokenizer needs.

    Raises:
        ImportError: if TensorFlow Text cannot be imported.
    """
    import tensorflow_text

    folder = os.path.dirname(tensorflow_text.__file__)
    return os.path.join(folder, "python/ops/_sentencepiece_tokenizer.so")


def _example(call):
    values = {
        "signature": _bytes(call.signature.encode()),
        "stream": _integer(call.stream),
        "may_fail": _integer(int(call.may_fail)),
        "outputs": _bytes(*(name.encode() for name in call.outputs)),
    }
    for name, value in call.inputs.items():
        proto = tf.make_tensor_proto(np.asarray(value))
        values[f"inputs/{name}"] = _bytes(proto.SerializeToString())
    return tf.train.Example(features=tf.train.Features(feature=values))


def _bytes(*values):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _integer(value):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def _result(record):
    values = tf.train.Example.FromString(record).features.feature
    outputs = {
        key.removeprefix("outputs/"): tf.make_ndarray(
            tensor_pb2.TensorProto.FromString(value.bytes_list.value[0])
        )
        for key, value in values.items()
        if key.startswith("outputs/")
    }
    return Result(
        outputs=outputs,
        microseconds=values["microseconds"].int64_list.value[0],
        status=values["status"].bytes_list.value[0].decode(),
        message=values["message"].bytes_list.value[0].decode(),
    )


def _error(done):
    # TensorFlow writes to stderr too.
    for line in done.stderr.splitlines():
        _, found, message = line.partition("saved_model_runner: error: ")
        if found:
            return ValueError(message)
    return RuntimeError(
        f"saved_model_runner ended with {done.returncode}:\n{done.stderr}"
    )
