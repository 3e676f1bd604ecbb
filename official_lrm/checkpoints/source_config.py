"""The config of a published Transformer-XL, read and checked."""

import dataclasses
import numbers
from collections.abc import Mapping

from official_lrm.models import TransformerXLLanguageModel
from official_lrm.models.arguments import spans_of_layers

# Fields that change what the weights compute in ways that are not built here,
# and the only values that are.
_FIXED = {
    "pre_lnorm": (False, None),
    "attn_type": (0, None),
    "ext_len": (0, None),
}


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """What a converter needs to know of its source.

    Attributes:
        arguments: of TransformerXLLanguageModel, but for `spans`,
            `untie_biases` and `attend_to_empty`.
        num_layers: L.
        memory_length: `mem_len`, None where the config has none.
        untie_biases: `untie_r`, None where the config does not say.
        tied_projections: one bool per cluster: whether the softmax's
            projection is the embedding's.
        project_same_size: `proj_same_dim` of the TensorFlow reference.
    """

    arguments: Mapping
    num_layers: int
    memory_length: int | None
    untie_biases: bool | None
    tied_projections: tuple[bool, ...]
    project_same_size: bool

    def build_model(self, spans, untie_biases, attend_to_empty, dtype):
        """Builds a model with random weights.

        Args:
            spans: as the caller gave them; None = `mem_len` at every layer.
            untie_biases: used where the config does not say.
            attend_to_empty: as the caller gave it.
            dtype: as the caller gave it.

        Returns:
            A TransformerXLLanguageModel.

        Raises:
            ValueError: if the spans are not of this number of layers, or
                there are none at all, or the config describes no model.
        """
        if spans is None:
            if self.memory_length is None:
                raise ValueError(
                    "config must have mem_len, or spans must be given; got "
                    "neither."
                )
            spans = (self.memory_length,) * self.num_layers
        spans = spans_of_layers(spans, self.num_layers, "the config")
        if self.untie_biases is not None:
            untie_biases = self.untie_biases
        try:
            return TransformerXLLanguageModel(
                **self.arguments,
                spans=spans,
                untie_biases=untie_biases,
                attend_to_empty=attend_to_empty,
                dtype=dtype,
            )
        except ValueError as error:
            raise ValueError(f"config describes no model: {error}") from None


def read_source_config(
    config, share_projections: bool, layer_norm_epsilon: float = 1e-5
) -> SourceConfig:
    """Reads a config with the field names of any of the sources.

    Hugging Face, the PyTorch and the TensorFlow reference of Dai et al. name
    their fields alike, but for `vocab_size` or `n_token`,
    `tie_word_embeddings` or `tie_weight`, and `tie_projs` or
    `proj_share_all_but_first`. Fields that do not bear on the numbers are not
    looked at.

    Args:
        config: mapping of field name to value.
        share_projections: `proj_share_all_but_first` where the config says
            nothing of it.
        layer_norm_epsilon: where the config has none.

    Returns:
        SourceConfig.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """
    if not isinstance(config, Mapping):
        raise ValueError(
            "config must be a mapping of field names to values; got "
            f"{type(config).__name__}."
        )
    for name, allowed in _FIXED.items():
        if config.get(name) not in allowed:
            raise ValueError(
                f"config {name} must be {allowed[0]!r}, the only kind of "
                f"Transformer-XL that is built here; got {config[name]!r}."
            )
    samples = config.get("sample_softmax")
    if samples is not None and _integer(config, "sample_softmax", None) > 0:
        raise ValueError(
            "config sample_softmax must be off (-1): the sampled softmax is "
            f"not built here; got {samples!r}."
        )
    hidden_size = _integer(config, "d_model")
    embedding_size = hidden_size
    if config.get("d_embed") is not None:
        embedding_size = _integer(config, "d_embed")
    cutoffs = config.get("cutoffs")
    cutoffs = [] if cutoffs is None else cutoffs
    if not isinstance(cutoffs, (list, tuple)):
        raise ValueError(
            f"config cutoffs must be a list of token ids; got {cutoffs!r}."
        )
    tied = _tied_projections(config, len(cutoffs) + 1, share_projections)
    clamp_length = _integer(config, "clamp_len", None, default=-1)
    memory_length = None
    if config.get("mem_len") is not None:
        memory_length = _integer(config, "mem_len", 0)
    return SourceConfig(
        arguments={
            "vocab_size": _integer(
                config, "n_token" if "n_token" in config else "vocab_size"
            ),
            "hidden_size": hidden_size,
            "num_heads": _integer(config, "n_head"),
            "head_size": _integer(config, "d_head"),
            "inner_size": _integer(config, "d_inner"),
            "dropout": _number(config, "dropout", 0.0),
            "attention_dropout": _number(config, "dropatt", 0.0),
            "clamp_length": clamp_length if clamp_length > 0 else None,
            "same_length": _bool(config, "same_length", False),
            "cutoffs": cutoffs,
            "div_value": _integer(config, "div_val", default=1),
            "embedding_size": embedding_size,
            "tie_embeddings": _bool(
                config,
                "tie_weight" if "tie_weight" in config else _TIE,
                True,
            ),
            "share_projections": all(tied[1:]),
            "layer_norm_epsilon": _number(
                config, "layer_norm_epsilon", layer_norm_epsilon
            ),
            "initializer_stddev": _number(config, "init_std", 0.02),
            "projection_initializer_stddev": _number(
                config, "proj_init_std", 0.01
            ),
        },
        num_layers=_integer(config, "n_layer"),
        memory_length=memory_length,
        untie_biases=_bool(config, "untie_r", None),
        tied_projections=tied,
        project_same_size=_bool(config, "proj_same_dim", True),
    )


_TIE = "tie_word_embeddings"


def _tied_projections(config, num_clusters, share_projections):
    tied = config.get("tie_projs")
    if tied is None:
        shared = _bool(config, "proj_share_all_but_first", share_projections)
        return (False, *[shared] * (num_clusters - 1))
    if (
        not isinstance(tied, (list, tuple))
        or len(tied) != num_clusters
        or not all(isinstance(value, bool) for value in tied)
    ):
        raise ValueError(
            f"config tie_projs must be a list of {num_clusters} bools, one "
            f"more than there are cutoffs; got {tied!r}."
        )
    return tuple(tied)


def _integer(config, name, minimum=1, default=None):
    value = config.get(name, default)
    if (
        not isinstance(value, numbers.Integral)
        or isinstance(value, bool)
        or (minimum is not None and value < minimum)
    ):
        least = "" if minimum is None else f" of at least {minimum}"
        got = repr(value) if name in config else "none"
        raise ValueError(f"config {name} must be an integer{least}; got {got}.")
    return int(value)


def _number(config, name, default):
    value = config.get(name, default)
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise ValueError(f"config {name} must be a number; got {value!r}.")
    return float(value)


def _bool(config, name, default):
    value = config.get(name, default)
    if value is not default and not isinstance(value, bool):
        raise ValueError(f"config {name} must be true or false; got {value!r}.")
    return value
