"""Validation of the language model's arguments, without building one."""

import itertools
import numbers
import operator
from collections.abc import Mapping, Set

from official_lrm.memory.spans import MemorySpans

_OF_SOFTMAX_ONLY = ("tie_embeddings", "share_projections")
_OF_SOFTMAX = (
    "vocab_size",
    "hidden_size",
    "cutoffs",
    "div_value",
    "embedding_size",
    *_OF_SOFTMAX_ONLY,
    "initializer_stddev",
    "projection_initializer_stddev",
)


# What the shapes of the weights depend on beside the number of layers, with
# the values of presets that were written before there was a choice.
_SHAPE_DEFAULTS = {
    "vocab_size": None,
    "hidden_size": None,
    "num_heads": None,
    "head_size": None,
    "inner_size": None,
    "untie_biases": False,
    "cutoffs": [],
    "div_value": 1,
    "embedding_size": None,
    "tie_embeddings": True,
    "share_projections": True,
}


def shape_arguments(config: dict) -> dict:
    """Those of a model's config that the shapes of its weights depend on.

    Args:
        config: the model's `get_config`, or keyword arguments of its
            constructor.

    Returns:
        A dict of them; `embedding_size` is never None and `cutoffs` a list.
    """
    shapes = {
        name: config.get(name, default)
        for name, default in _SHAPE_DEFAULTS.items()
    }
    shapes["cutoffs"] = list(shapes["cutoffs"])
    shapes["embedding_size"] = shapes["embedding_size"] or shapes["hidden_size"]
    return shapes


def check_same_shapes(what: str, config: dict, model_config: dict):
    """Refuses weights that were saved from a model of other shapes.

    Args:
        what: holds the weights, for the error.
        config: of the model that was saved.
        model_config: of the model that is to take them.

    Raises:
        ValueError: naming the argument and both values.
    """
    saved, ours = shape_arguments(config), shape_arguments(model_config)
    for name, value in ours.items():
        if saved[name] != value:
            raise ValueError(
                f"{what} has {name} {saved[name]!r}; the model has {value!r}."
            )


def spans_of_layers(spans, num_layers: int, whose: str) -> MemorySpans:
    """Spans for a model that exists already.

    Args:
        spans: MemorySpans or one length per layer.
        num_layers: L.
        whose: has so many layers, for the error.

    Returns:
        MemorySpans.

    Raises:
        ValueError: if they are not of L layers.
    """
    spans = MemorySpans(spans)
    if len(spans) != num_layers:
        raise ValueError(
            f"spans must name {num_layers} layers, as {whose} has; got "
            f"{len(spans)}: {list(spans)}."
        )
    return spans


def backbone_arguments(config: dict) -> dict:
    """Those of `check_arguments`' dict that TransformerXL takes."""
    return {
        name: value
        for name, value in config.items()
        if name not in _OF_SOFTMAX_ONLY
    }


def softmax_arguments(config: dict) -> dict:
    """Those of `check_arguments`' dict that AdaptiveSoftmax takes."""
    return {name: config[name] for name in _OF_SOFTMAX}


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
    cutoffs=(),
    div_value=1,
    embedding_size=None,
    tie_embeddings=True,
    share_projections=True,
    projection_initializer_stddev=0.01,
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
        "projection_initializer_stddev": _positive(
            "projection_initializer_stddev", projection_initializer_stddev
        ),
        "div_value": _size("div_value", div_value),
        "tie_embeddings": bool(tie_embeddings),
        "share_projections": bool(share_projections),
    }
    if embedding_size is None:
        embedding_size = config["hidden_size"]
    config["embedding_size"] = _size(
        "embedding_size", embedding_size, " or None"
    )
    config["cutoffs"] = _cutoffs(cutoffs, config)
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


def _cutoffs(cutoffs, config):
    # A set has no order and a mapping's keys are no cutoffs.
    if isinstance(cutoffs, (str, bytes, Set, Mapping)) or not hasattr(
        cutoffs, "__iter__"
    ):
        raise ValueError(
            f"cutoffs must be a tuple of token ids; got {cutoffs!r}."
        )
    # Lists: what Keras and JSON keep as they are.
    cutoffs = [
        _size(f"cutoffs[{index}]", cutoff)
        for index, cutoff in enumerate(cutoffs)
    ]
    ends = [0, *cutoffs, config["vocab_size"]]
    if any(left >= right for left, right in itertools.pairwise(ends)):
        raise ValueError(
            "cutoffs must rise and lie between 0 and "
            f"vocab_size={config['vocab_size']}; got {cutoffs}."
        )
    narrowest = config["embedding_size"] // config["div_value"] ** len(cutoffs)
    if not narrowest:
        raise ValueError(
            f"embedding_size must be at least div_value ** {len(cutoffs)} = "
            f"{config['div_value'] ** len(cutoffs)}, so that the last cluster "
            f"has a width; got {config['embedding_size']}."
        )
    return cutoffs


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
