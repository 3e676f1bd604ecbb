"""What a checkpoint holds: variables by path, and what it says of its run."""

import json
import re

import tensorflow as tf

# What TensorFlow raises for files that are torn, truncated or foreign, and
# what its reader makes of the same in Python.
READ_ERRORS = (tf.errors.OpError, IndexError, ValueError)

# Which operation of TensorFlow an error is from.
_OPERATION = re.compile(r"\{\{function_node [^}]*\}\}|\[Op:\w+\]( name:)?")

#: Of what a checkpoint says of its run.
FORMAT = 2


class UnreadableCheckpointError(ValueError):
    """Files of a checkpoint are torn or missing; another one may do."""


def variables_by_path(variables) -> dict:
    """Raw variables of Keras variables, by path.

    TensorFlow's own tracking misses Keras 3 layers held in lists, and says
    nothing.

    Args:
        variables: Keras variables.

    Returns:
        A dict from path to tf.Variable.

    Raises:
        ValueError: if two variables have one path.
    """
    by_path = {variable.path: variable.value for variable in variables}
    if len(by_path) != len(variables):
        raise ValueError("two variables share one path; none may be lost.")
    return by_path


def check_variables(path, groups):
    """Compares the variables of a checkpoint with those of the program.

    TensorFlow restores what fits and is silent, or fills pages, about the
    rest.

    Args:
        path: prefix of the checkpoint.
        groups: dict from "model" or "optimizer" to dicts of raw variables by
            path.

    Raises:
        ValueError: naming the first variable that is missing, extra or of
            another shape or dtype, and how many there are.
    """
    reader = _reader(path)
    shapes = reader.get_variable_to_shape_map()
    dtypes = reader.get_variable_to_dtype_map()
    wrong = []
    for group, variables in groups.items():
        keys = {
            f"{group}/{_escape(name)}{_VALUE}": (name, variable)
            for name, variable in variables.items()
        }
        saved = {
            key
            for key in shapes
            if key.startswith(f"{group}/") and key.endswith(_VALUE)
        }
        wrong += [f"lacks {keys[key][0]}" for key in keys if key not in saved]
        wrong += [
            f"has {key.removesuffix(_VALUE).replace('.S', '/')}, which is "
            "none of this run's"
            for key in sorted(saved - set(keys))
        ]
        for key, (name, variable) in keys.items():
            if key not in saved:
                continue
            ours = (tuple(variable.shape), variable.dtype.base_dtype.name)
            theirs = (tuple(shapes[key]), dtypes[key].name)
            if ours != theirs:
                wrong.append(
                    f"has {name} as {theirs[1]} {list(theirs[0])}, not "
                    f"{ours[1]} {list(ours[0])}"
                )
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if wrong[1:] else ""
        raise ValueError(
            f"checkpoint {path} is of another model: it {wrong[0]}{more}."
        )


def read_description(path) -> dict:
    """Reads what a checkpoint says of its run.

    Args:
        path: prefix of the checkpoint.

    Returns:
        A dict, empty where the checkpoint says nothing.

    Raises:
        ValueError: if it cannot be read, or is of another format.
    """
    reader = _reader(path)
    if not reader.has_tensor(_DESCRIPTION):
        return {}
    try:
        description = json.loads(reader.get_tensor(_DESCRIPTION))
    except READ_ERRORS as error:
        raise _unreadable(path, error) from None
    if description and description["format"] != FORMAT:
        raise ValueError(
            f"checkpoint {path} has format {description['format']}; this "
            f"release reads format {FORMAT}."
        )
    return description


def restore(checkpoint, path):
    """Reads a checkpoint into a program's objects, with one-line errors.

    Args:
        checkpoint: tf.train.Checkpoint.
        path: prefix of the files.

    Returns:
        The load status.

    Raises:
        UnreadableCheckpointError: if the files are torn.
    """
    try:
        return checkpoint.read(path)
    except READ_ERRORS as error:
        raise _unreadable(path, error) from None


_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_DESCRIPTION = "run/.ATTRIBUTES/py_state"


def _escape(name):
    # As TensorFlow's object graph names its children.
    return name.replace(".", "..").replace("/", ".S")


def _reader(path):
    try:
        return tf.train.load_checkpoint(path)
    except READ_ERRORS as error:
        raise _unreadable(path, error) from None


def _unreadable(path, error):
    return UnreadableCheckpointError(
        f"checkpoint {path} cannot be read: {reason_of(error)}"
    )


def reason_of(error) -> str:
    """The message of an exception on one line."""
    # Of TensorFlow, and of the operating system.
    text = getattr(error, "message", None) or getattr(error, "strerror", None)
    text = text or str(error)
    return " ".join(_OPERATION.sub("", text).split())
