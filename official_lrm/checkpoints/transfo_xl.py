"""Hugging Face's TransfoXLLMHeadModel and the PyTorch reference."""

from collections.abc import Mapping

import numpy as np
from absl import logging

from official_lrm.checkpoints.source_config import read_source_config
from official_lrm.checkpoints.tensor_source import TensorSource
from official_lrm.checkpoints.weight_map import MappedTensor, WeightViews

_HUGGING_FACE_PREFIX = "transformer."
_FREQUENCIES = "pos_emb.inv_freq"


def from_transfo_xl(
    state_dict, config, *, spans=None, attend_to_empty=True, dtype=None
):
    """Builds the model of a Hugging Face or PyTorch Transformer-XL.

    ```python
    theirs = transformers.TransfoXLLMHeadModel.from_pretrained(folder)
    model = lrm.checkpoints.from_transfo_xl(
        theirs.state_dict(),
        theirs.config.to_dict(),
        spans=[128] * 15 + [1600] * 3,
    )
    ```

    Names that begin with `transformer.` are Hugging Face's. Without it they
    are those of the PyTorch reference of Dai et al. (`MemTransformerLM`),
    whose adaptive softmax counts its clusters from the end.

    Every tensor is used once, or is another name of one that is used (tied
    softmax, copies of shared biases) and must equal it, or is skipped (the
    frequencies of the positions, which are computed).

    Args:
        state_dict: mapping of name to array or PyTorch tensor.
        config: mapping of the source's own field names (`n_layer`, `mem_len`,
            `cutoffs`, …) to values.
        spans: MemorySpans or one memory length per layer; None = `mem_len` at
            every layer.
        attend_to_empty: whether memory that was never written is seen as zero
            vectors. Hugging Face does so; the PyTorch reference starts without
            memory (False).
        dtype: a Keras dtype policy or its name; None = the global one.

    Returns:
        A TransformerXLLanguageModel.

    Raises:
        ValueError: naming the tensor or the config's field that is missing,
            too many or wrong.
    """
    model, uses = convert_transfo_xl(
        state_dict, config, spans, attend_to_empty, dtype
    )
    for name, use in uses.items():
        logging.info("%s: %s", name, use)
    return model


def convert_transfo_xl(
    state_dict,
    config,
    spans=None,
    attend_to_empty=True,
    dtype=None,
    what="state_dict",
):
    """As `from_transfo_xl`, and tells what became of each tensor.

    Args:
        state_dict: as for `from_transfo_xl`.
        config: as for `from_transfo_xl`.
        spans: as for `from_transfo_xl`.
        attend_to_empty: as for `from_transfo_xl`.
        dtype: as for `from_transfo_xl`.
        what: names the source in errors.

    Returns:
        (model, dict of tensor name to "used", "the same as NAME" or "skipped:
        REASON").

    Raises:
        ValueError: as `from_transfo_xl`.
    """
    if not isinstance(state_dict, Mapping):
        raise ValueError(
            f"{what} must be a mapping of names to arrays; got "
            f"{type(state_dict).__name__}."
        )
    is_reference = not any(
        str(name).startswith(_HUGGING_FACE_PREFIX) for name in state_dict
    )
    prefix = "" if is_reference else _HUGGING_FACE_PREFIX
    source_config = read_source_config(
        config, share_projections=not is_reference
    )
    source = TensorSource(state_dict, what)
    model = source_config.build_model(
        spans,
        untie_biases=f"{prefix}r_w_bias" not in source,
        attend_to_empty=attend_to_empty,
        dtype=dtype,
    )
    views = WeightViews(model, blank=True)
    tied = source_config.tied_projections
    for tensor in _tensors(model, views, prefix, tied, is_reference):
        tensor.write(source.take(tensor.names, tensor.shape))
    source.skip_equal(
        prefix + _FREQUENCIES,
        _frequencies(model.hidden_size),
        "the frequencies of the positions are computed",
    )
    uses = source.finish()
    views.assign()
    return model, uses


def to_transfo_xl(model):
    """A model as Hugging Face's TransfoXLLMHeadModel: the inverse.

    Hugging Face has one memory length for all layers: `mem_len` is the longest
    span. `attend_to_empty` has no field there; it is always on.

    Args:
        model: a TransformerXLLanguageModel.

    Returns:
        state_dict: dict of name to NumPy array in the dtype of the weights,
            with every name that Hugging Face's own state dict has.
        config: dict of `TransfoXLConfig`'s field names.
    """
    ours = model.get_config()
    shared = ours["share_projections"]
    tied = (False, *[shared] * len(ours["cutoffs"]))
    state_dict = {}
    views = WeightViews(model)
    for tensor in _tensors(model, views, _HUGGING_FACE_PREFIX, tied):
        value = tensor.read()
        state_dict.update(dict.fromkeys(tensor.names, value))
    state_dict[_HUGGING_FACE_PREFIX + _FREQUENCIES] = _frequencies(
        model.hidden_size
    )
    config = {
        "model_type": "transfo-xl",
        "architectures": ["TransfoXLLMHeadModel"],
        "vocab_size": ours["vocab_size"],
        "n_layer": len(model.spans),
        "d_model": ours["hidden_size"],
        "d_embed": ours["embedding_size"],
        "n_head": ours["num_heads"],
        "d_head": ours["head_size"],
        "d_inner": ours["inner_size"],
        "cutoffs": list(ours["cutoffs"]),
        "div_val": ours["div_value"],
        "mem_len": max(model.spans),
        "clamp_len": ours["clamp_length"] or -1,
        "same_length": ours["same_length"],
        "untie_r": ours["untie_biases"],
        "tie_word_embeddings": ours["tie_embeddings"],
        "proj_share_all_but_first": shared,
        "tie_projs": list(tied),
        "dropout": ours["dropout"],
        "dropatt": ours["attention_dropout"],
        "layer_norm_epsilon": ours["layer_norm_epsilon"],
        "init_std": ours["initializer_stddev"],
        "proj_init_std": ours["projection_initializer_stddev"],
        "adaptive": True,
        "attn_type": 0,
        "pre_lnorm": False,
        "sample_softmax": -1,
    }
    return state_dict, config


def _frequencies(hidden_size):
    # float32 throughout, with the power rounded correctly: PyTorch's numbers,
    # to a unit in the last place.
    exponents = np.arange(0, hidden_size, 2, dtype="float32")
    exponents = (exponents / np.float32(hidden_size)).astype("float64")
    return np.float32(1) / np.power(10000.0, exponents).astype("float32")


def _tensors(model, views, prefix, tied, is_reference=False):
    """Yields a MappedTensor for each tensor of a state dict.

    Args:
        model: a TransformerXLLanguageModel.
        views: its WeightViews.
        prefix: of the names.
        tied: one bool per cluster, whether the softmax's projection is the
            embedding's in the state dict.
        is_reference: whether clusters count from the end.
    """
    yield from _embedding_and_softmax(model, views, prefix, tied, is_reference)
    backbone = model.backbone
    for name, bias in (
        ("r_w_bias", backbone.content_bias),
        ("r_r_bias", backbone.position_bias),
    ):
        bias = views(bias)
        copies = [
            f"{prefix}layers.{layer}.dec_attn.{name}"
            for layer in range(len(backbone.blocks))
        ]
        if backbone.untie_biases:
            for layer, copy in enumerate(copies):
                yield MappedTensor([copy], [[bias[layer]]])
        else:
            yield MappedTensor([prefix + name, *copies], [[bias]])
    for layer, block in enumerate(backbone.blocks):
        yield from _block(block, views, f"{prefix}layers.{layer}.")


def _embedding_and_softmax(model, views, prefix, tied, is_reference):
    embedding, softmax = model.backbone.embedding, model.softmax
    bias, clusters = views(softmax.bias), softmax.clusters
    # With div_value 1 a state dict has one table, and one bias, for all
    # clusters.
    is_divided = softmax.div_value > 1
    biases = [bias]
    if is_divided:
        biases = [bias[cluster.start : cluster.stop] for cluster in clusters]
    for index, part in enumerate(biases):

        def tables(layer, index=index):
            parts = layer.tables[index : index + 1 if is_divided else None]
            return [[views(table) for table in parts]]

        names = [f"{prefix}word_emb.emb_layers.{index}.weight"]
        of_softmax = f"crit.out_layers.{index}.weight"
        if softmax.tie_embeddings:
            names.append(of_softmax)
        else:
            yield MappedTensor([of_softmax], tables(softmax))
        yield MappedTensor(names, tables(embedding))
        yield MappedTensor([f"crit.out_layers.{index}.bias"], [[part]])

    for index, projection in enumerate(embedding.projections):
        names = [f"{prefix}word_emb.emb_projs.{index}"]
        places = [[views(projection).T]]
        for other, is_tied in enumerate(tied):
            if is_tied and (other == index or not is_divided):
                names.append(f"crit.out_projs.{other}")
                if other < len(softmax.projections):
                    places.append([views(softmax.projections[other]).T])
        yield MappedTensor(names, places)
    for index, projection in enumerate(softmax.projections):
        if not tied[index]:
            yield MappedTensor(
                [f"crit.out_projs.{index}"], [[views(projection).T]]
            )
    if softmax.cutoffs:
        order = slice(None, None, -1 if is_reference else 1)
        for name, weight in (
            ("cluster_weight", softmax.cluster_kernel),
            ("cluster_bias", softmax.cluster_bias),
        ):
            yield MappedTensor([f"crit.{name}"], [[views(weight)[order]]])


def _block(block, views, prefix):
    attention = block.attention

    def matrix(kernel):  # [N * H, D]
        return views(kernel).reshape(-1, block.hidden_size)

    for name, parts in (
        (
            "dec_attn.qkv_net.weight",
            [
                matrix(attention.query_kernel),
                matrix(attention.key_kernel),
                matrix(attention.value_kernel),
            ],
        ),
        ("dec_attn.r_net.weight", [matrix(attention.position_kernel)]),
        ("dec_attn.o_net.weight", [matrix(attention.output_kernel).T]),
        ("dec_attn.layer_norm.weight", [views(block.attention_norm.gamma)]),
        ("dec_attn.layer_norm.bias", [views(block.attention_norm.beta)]),
        ("pos_ff.CoreNet.0.weight", [views(block.inner.kernel).T]),
        ("pos_ff.CoreNet.0.bias", [views(block.inner.bias)]),
        ("pos_ff.CoreNet.3.weight", [views(block.outer.kernel).T]),
        ("pos_ff.CoreNet.3.bias", [views(block.outer.bias)]),
        ("pos_ff.layer_norm.weight", [views(block.feed_forward_norm.gamma)]),
        ("pos_ff.layer_norm.bias", [views(block.feed_forward_norm.beta)]),
    ):
        yield MappedTensor([prefix + name], [parts])
