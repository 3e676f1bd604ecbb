"""Number of parameters, without building a model."""


def count_parameters(
    vocab_size,
    num_layers,
    hidden_size,
    num_heads,
    head_size,
    inner_size,
    untie_biases=False,
) -> int:
    """Number of weights of a TransformerXLLanguageModel.

    `L * (3Dh + Dh + hD + 4D + 2DF + F + D) + 2h * (L if untied else 1) +
    V * D + V` with h = N * H. Memory lengths do not enter.

    Args:
        vocab_size: V.
        num_layers: L.
        hidden_size: D.
        num_heads: N.
        head_size: H.
        inner_size: F.
        untie_biases: whether each layer has its own attention biases.
    """
    heads = num_heads * head_size
    attention = 5 * hidden_size * heads
    norms = 4 * hidden_size
    feed_forward = 2 * hidden_size * inner_size + inner_size + hidden_size
    biases = 2 * heads * (num_layers if untie_biases else 1)
    return (
        num_layers * (attention + norms + feed_forward)
        + biases
        + vocab_size * hidden_size
        + vocab_size
    )
