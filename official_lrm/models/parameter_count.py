"""Number of parameters, without building a model."""

from official_lrm.layers.vocabulary_clusters import vocabulary_clusters
from official_lrm.models.arguments import shape_arguments


def count_parameters(num_layers, **arguments) -> int:
    """Number of weights of a TransformerXLLanguageModel.

    `L * (3Dh + Dh + hD + 4D + 2DF + F + D) + 2h * (L if untied else 1)` with
    h = N * H, the embedding's tables and projections, and the softmax's
    biases, cluster weights and what it does not share with the embedding.
    Memory lengths do not enter.

    Args:
        num_layers: L.
        **arguments: of TransformerXLLanguageModel; those that do not decide
            shapes are not looked at.
    """
    shapes = shape_arguments(arguments)
    hidden_size, inner_size = shapes["hidden_size"], shapes["inner_size"]
    heads = shapes["num_heads"] * shapes["head_size"]
    attention = 5 * hidden_size * heads
    norms = 4 * hidden_size
    feed_forward = 2 * hidden_size * inner_size + inner_size + hidden_size
    biases = 2 * heads * (num_layers if shapes["untie_biases"] else 1)
    return (
        num_layers * (attention + norms + feed_forward)
        + biases
        + _count_vocabulary(shapes)
    )


def _count_vocabulary(shapes):
    width, hidden_size = shapes["embedding_size"], shapes["hidden_size"]
    clusters = vocabulary_clusters(
        shapes["vocab_size"], shapes["cutoffs"], shapes["div_value"], width
    )
    tables = sum(cluster.size * cluster.embedding_size for cluster in clusters)
    in_embedding, in_softmax = [], []  # Widths of the projections.
    if shapes["div_value"] > 1 or width != hidden_size:
        in_softmax = [cluster.embedding_size for cluster in clusters]
        in_embedding = in_softmax if shapes["div_value"] > 1 else [width]
    if shapes["share_projections"]:
        in_softmax = in_softmax[:1]
    return (
        tables * (1 if shapes["tie_embeddings"] else 2)
        + sum(in_embedding + in_softmax) * hidden_size
        + shapes["vocab_size"]
        + len(shapes["cutoffs"]) * (width + 1)
    )
