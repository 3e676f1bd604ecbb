"""TensorFlow 1 checkpoints of the reference of Dai et al."""

import numpy as np
import tensorflow as tf
from absl import logging

from official_lrm.checkpoints.source_config import read_source_config
from official_lrm.checkpoints.tensor_source import TensorSource
from official_lrm.checkpoints.weight_map import MappedTensor, WeightViews

_SCOPE = "transformer/"

# What a checkpoint reader raises: a status of TensorFlow, or what its bindings
# make of one.
_READ_ERRORS = (tf.errors.OpError, ValueError, LookupError, RuntimeError)

# tf.contrib.layers.layer_norm's, which the reference calls.
_LAYER_NORM_EPSILON = 1e-12

_SKIPPED = (
    (("/Adam", "/Adam_1"), "a slot of the optimizer"),
    (("beta1_power", "beta2_power"), "a state of the optimizer"),
    (("global_step",), "the step of the run"),
)


def from_transformer_xl_tf1(
    prefix, config, *, spans=None, attend_to_empty=True, dtype=None
):
    """Builds the model of a TensorFlow 1 checkpoint.

    With `same_length` the reference lets a query see one key more than
    Hugging Face and this model do, at distances up to `mem_len` and not below
    it. Its numbers are those of spans of `mem_len + 1`.

    Every variable is used once or skipped (optimizer slots, step).

    Args:
        prefix: path of the checkpoint, `…/model.ckpt-1234`.
        config: mapping of the reference's flags (`n_token`, `n_layer`,
            `mem_len`, `cutoffs` without 0 and V, …) to values; Hugging Face's
            names do as well. Without `layer_norm_epsilon` it is the
            reference's 1e-12.
        spans: MemorySpans or one memory length per layer; None = `mem_len` at
            every layer.
        attend_to_empty: whether memory that was never written is seen as zero
            vectors, as the reference does.
        dtype: a Keras dtype policy or its name; None = the global one.

    Returns:
        A TransformerXLLanguageModel.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: naming the variable or the config's field that is missing,
            too many or wrong.
    """
    model, uses = convert_transformer_xl_tf1(
        prefix, config, spans, attend_to_empty, dtype
    )
    for name, use in uses.items():
        logging.info("%s: %s", name, use)
    return model


def convert_transformer_xl_tf1(
    prefix, config, spans=None, attend_to_empty=True, dtype=None
):
    """As `from_transformer_xl_tf1`, and tells what became of each variable.

    Args:
        prefix: as for `from_transformer_xl_tf1`.
        config: as for `from_transformer_xl_tf1`.
        spans: as for `from_transformer_xl_tf1`.
        attend_to_empty: as for `from_transformer_xl_tf1`.
        dtype: as for `from_transformer_xl_tf1`.

    Returns:
        (model, dict of variable name to "used" or "skipped: REASON").

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: as `from_transformer_xl_tf1`.
    """
    source_config = read_source_config(
        config,
        share_projections=False,
        layer_norm_epsilon=_LAYER_NORM_EPSILON,
    )
    if not source_config.arguments["tie_embeddings"]:
        raise ValueError(
            "config tie_weight must be true: the TensorFlow reference always "
            "ties embedding and softmax; got false."
        )
    variables = _Checkpoint(prefix)
    source = TensorSource(variables, f"checkpoint {prefix}")
    bias_shape = variables.shapes.get(f"{_SCOPE}r_w_bias", ())
    model = source_config.build_model(
        spans,
        untie_biases=len(bias_shape) == 3,
        attend_to_empty=attend_to_empty,
        dtype=dtype,
    )
    if model.same_length and spans is None:
        logging.warning(
            "same_length: the TensorFlow reference lets a query see one key "
            "more than this model; spans of mem_len + 1 give its numbers."
        )
    views = WeightViews(model, blank=True)
    for tensor in _tensors(model, views, source_config):
        tensor.write(source.take(tensor.names, tensor.shape))
    for endings, reason in _SKIPPED:
        source.skip(
            lambda name, endings=endings: name.endswith(endings), reason
        )
    uses = source.finish()
    views.assign()
    return model, uses


class _Checkpoint(dict):
    """Variables by name, read when asked for."""

    def __init__(self, prefix):
        self._prefix = str(prefix)
        if not tf.io.gfile.exists(f"{self._prefix}.index"):
            raise FileNotFoundError(
                f"no TensorFlow checkpoint at {prefix}: there is no "
                f"{prefix}.index."
            )
        try:
            self._reader = tf.train.load_checkpoint(self._prefix)
            self.shapes = self._reader.get_variable_to_shape_map()
        except _READ_ERRORS as error:
            raise self._damaged(error) from None
        super().__init__(dict.fromkeys(sorted(self.shapes)))

    def __getitem__(self, name):
        try:
            return self._reader.get_tensor(name)
        except _READ_ERRORS as error:
            raise self._damaged(error, f" at {name}") from None

    def _damaged(self, error, where=""):
        reason = " ".join(str(error).split())
        return ValueError(
            f"checkpoint {self._prefix} cannot be read{where}: {reason}"
        )


def _tensors(model, views, config):
    """Yields a MappedTensor for each variable of a checkpoint."""
    backbone = model.backbone
    yield from _embedding_and_softmax(model, views, config)
    yield _mapped("r_w_bias", views(backbone.content_bias))
    yield _mapped("r_r_bias", views(backbone.position_bias))
    for layer, block in enumerate(backbone.blocks):
        for name, array in _block(block, views):
            yield MappedTensor(
                [f"{_SCOPE}layer_{layer}/{name}"],
                [array if isinstance(array, list) else [array]],
                axis=-1,
            )


def _mapped(name, *arrays):
    return MappedTensor([_SCOPE + name], [[array] for array in arrays])


def _embedding_and_softmax(model, views, config):
    embedding, softmax = model.backbone.embedding, model.softmax
    is_divided = softmax.div_value > 1
    if is_divided:
        for index, table in enumerate(embedding.tables):
            name = f"adaptive_embed/cutoff_{index}/lookup_table"
            yield _mapped(name, views(table))
    else:
        tables = [views(table) for table in embedding.tables]
        yield MappedTensor([f"{_SCOPE}adaptive_embed/lookup_table"], [tables])

    # The reference's softmax without cutoffs has the embedding's projection.
    tied = config.tied_projections if softmax.cutoffs else (True,)
    for index, projection in enumerate(embedding.projections):
        places = [views(projection)] + [
            views(own)
            for other, own in enumerate(softmax.projections)
            if tied[other] and (other == index or not is_divided)
        ]
        folder = f"cutoff_{index}/" if is_divided else ""
        if _is_projected(projection, is_divided, config):
            yield _mapped(f"adaptive_embed/{folder}proj_W", *places)
        else:
            for place in places:
                place[...] = np.eye(len(place))
    for index, projection in enumerate(softmax.projections):
        if tied[index]:
            continue
        if _is_projected(projection, is_divided, config):
            name = f"adaptive_softmax/cutoff_{index}/proj"
            yield _mapped(name, views(projection))
        else:
            views(projection)[...] = np.eye(len(views(projection)))

    bias = views(softmax.bias)
    if not softmax.cutoffs:
        yield _mapped("adaptive_softmax/bias", bias)
        return
    for index, cluster in enumerate(softmax.clusters):
        yield _mapped(
            f"adaptive_softmax/cutoff_{index}/b",
            bias[cluster.start : cluster.stop],
        )
    folder = "adaptive_softmax/cutoff_0"
    yield _mapped(f"{folder}/cluster_W", views(softmax.cluster_kernel))
    yield _mapped(f"{folder}/cluster_b", views(softmax.cluster_bias))


def _is_projected(projection, is_divided, config):
    # Without proj_same_dim a cluster as wide as the model is not projected: as
    # if by the identity.
    width, hidden_size = projection.shape
    return config.project_same_size or not is_divided or width != hidden_size


def _block(block, views):
    attention = block.attention

    def matrix(kernel):  # [N * H, D]
        return views(kernel).reshape(-1, block.hidden_size)

    return (
        (
            "rel_attn/qkv/kernel",
            [
                matrix(attention.query_kernel).T,
                matrix(attention.key_kernel).T,
                matrix(attention.value_kernel).T,
            ],
        ),
        ("rel_attn/r/kernel", matrix(attention.position_kernel).T),
        ("rel_attn/o/kernel", matrix(attention.output_kernel)),
        ("rel_attn/LayerNorm/gamma", views(block.attention_norm.gamma)),
        ("rel_attn/LayerNorm/beta", views(block.attention_norm.beta)),
        ("ff/layer_1/kernel", views(block.inner.kernel)),
        ("ff/layer_1/bias", views(block.inner.bias)),
        ("ff/layer_2/kernel", views(block.outer.kernel)),
        ("ff/layer_2/bias", views(block.outer.bias)),
        ("ff/LayerNorm/gamma", views(block.feed_forward_norm.gamma)),
        ("ff/LayerNorm/beta", views(block.feed_forward_norm.beta)),
    )
