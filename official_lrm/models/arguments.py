"""Validation of the language model's arguments, without building one."""

import numbers
import operator

# Of the adaptive softmax, whose place is kept in the constructor.
_ADAPTIVE_DEFAULTS = {
    "cutoffs": (),
    "div_value": 1,
    "embedding_size": None,
    "tie_embeddings": True,
    "share_projections": True,
}


def check_arguments(
    vocab_size,
    hidden_size,
    num_heads,
    head_size,
    inner_size,
    dropout,
    attention_dropout,
    untie_biases,
    layer_norm_epsilon,
    initializer_stddev,
    clamp_length,
):
    """Validates arguments of TransformerXLLanguageModel without building one.

    Returns:
        A dict of those that weights and dropout depend on, as plain Python
        numbers, and `clamp_length`.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    config = {
        "vocab_size": _size("vocab_size", vocab_size),
        "hidden_size": _size("hidden_size", hidden_size),
        "num_heads": _size("num_heads", num_heads),
        "head_size": _size("head_size", head_size),
        "inner_size": _size("inner_size", inner_size),
        "dropout": _rate("dropout", dropout),
        "attention_dropout": _rate("attention_dropout", attention_dropout),
        "untie_biases": bool(untie_biases),
        "layer_norm_epsilon": _positive(
            "layer_norm_epsilon", layer_norm_epsilon
        ),
        "initializer_stddev": _positive(
            "initializer_stddev", initializer_stddev
        ),
    }
    if config["hidden_size"] % 2:
        raise ValueError(
            "hidden_size must be even (half sines, half cosines); got "
            f"{hidden_size}."
        )
    if clamp_length is not None:
        clamp_length = _size("clamp_length", clamp_length, " or None")
    return config, clamp_length


def _size(name, value, otherwise=""):
    # operator.index takes the integers of NumPy too; bool is one to Python.
    try:
        size = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        size = 0
    if size < 1:
        raise ValueError(
            f"{name} must be a positive integer{otherwise}; got {value!r}."
        )
    return size


def _rate(name, value):
    if not _is_number(value) or not 0 <= value < 1:
        raise ValueError(f"{name} must be from 0 to below 1; got {value!r}.")
    return float(value)


def _positive(name, value):
    if not _is_number(value) or not 0 < value < float("inf"):
        raise ValueError(f"{name} must be a positive number; got {value!r}.")
    return float(value)


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_adaptive(**arguments):
    """Refuses what the adaptive softmax, which is not here yet, would need.

    Args:
        **arguments: those of the constructor that are kept for it.

    Raises:
        ValueError: for any value but the default.
    """
    for name, value in arguments.items():
        if value != _ADAPTIVE_DEFAULTS[name]:
            raise ValueError(
                f"{name} must be {_ADAPTIVE_DEFAULTS[name]!r}: this version "
                f"has one softmax over the whole vocabulary; got {value!r}."
            )
