"""Floating-point operations of a segment, without building a model."""

import dataclasses

from official_lrm.layers.vocabulary_clusters import vocabulary_clusters
from official_lrm.memory.spans import MemorySpans
from official_lrm.models.arguments import shape_arguments

#: Nominal FLOPs of a training step over those of its forward pass: each matrix
#: product has two in the backward pass. Some of these a compiler may leave out:
#: the table of positions and the memories need no gradient.
TRAINING_FACTOR = 3


@dataclasses.dataclass(frozen=True)
class FlopCount:
    """FLOPs of the matrix products of one forward pass over a segment.

    Of all lanes together; two for each multiply-add. Softmaxes, layer norms,
    biases and table look-ups are not counted.

    Attributes:
        num_tokens: B * T.
        layers: of each layer, the first layer first.
        embedding: of the embedding's projections, 0 if it has none.
        softmax: of what every token needs: all projections and the logits of
            the first cluster and of the other clusters' shares; of the whole
            vocabulary if there are no cutoffs.
        tails: of the logits of each cluster but the first, for one target in
            it. The targets decide how often they are needed: a segment costs
            from `total` to `most`.
        constants: of the gradients that nothing needs, of memories and of the
            tables of positions.
    """

    num_tokens: int
    layers: tuple[int, ...]
    embedding: int
    softmax: int
    tails: tuple[int, ...]
    constants: int

    @property
    def training(self) -> int:
        """Of a training step: what its matrix products need at the least."""
        return TRAINING_FACTOR * self.total - self.constants

    @property
    def total(self) -> int:
        """All but `tails`, which no target needs to be in."""
        return sum(self.layers) + self.embedding + self.softmax

    @property
    def most(self) -> int:
        """`total` where all targets are in the dearest cluster."""
        return self.total + self.num_tokens * max(self.tails, default=0)

    def per_token(self, flops: int) -> float:
        """A number of FLOPs of the segment, divided among its tokens."""
        return flops / self.num_tokens


def count_flops(spans, segment_length, batch_size=1, **arguments) -> FlopCount:
    """FLOPs of one forward pass of a TransformerXLLanguageModel.

    For layer l, with K = M_l + T keys for each of B * T queries, and h = N * H:

    ```
    queries, output          2 * 2 B T D h
    keys, values             2 * 2 B K D h
    positions                    2 K D h      once for all lanes
    content, position scores 2 * 2 B T K h
    weighted values              2 B T K h
    feed-forward             2 * 2 B T D F
    ```

    All K keys count for every query, those that the causal mask hides too: the
    products are computed. Memory that was never written costs what full memory
    does. The softmax is that of `score`, and of the model's call if there are
    no cutoffs; with them the call also computes all of `tails` for every token.

    Args:
        spans: MemorySpans or one memory length M_l per layer.
        segment_length: T.
        batch_size: B.
        **arguments: of TransformerXLLanguageModel; those that do not decide
            shapes are not looked at.

    Raises:
        ValueError: for a segment length or batch size that is no positive
            integer, or wrong spans.
    """
    spans = MemorySpans(spans)
    for name, value in (
        ("segment_length", segment_length),
        ("batch_size", batch_size),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(
                f"{name} must be a positive integer; got {value!r}."
            )
    shapes = shape_arguments(arguments)
    num_tokens = batch_size * segment_length
    embedding, softmax, tails = _count_vocabulary(shapes, num_tokens)
    return FlopCount(
        num_tokens=num_tokens,
        layers=tuple(
            _count_layer(span, segment_length, batch_size, shapes)
            for span in spans
        ),
        embedding=embedding,
        softmax=softmax,
        tails=tails,
        constants=sum(
            _count_constants(span, segment_length, batch_size, shapes)
            for span in spans
        ),
    )


def _count_layer(span, segment_length, batch_size, shapes):
    hidden_size, inner_size = shapes["hidden_size"], shapes["inner_size"]
    heads = shapes["num_heads"] * shapes["head_size"]
    num_queries = batch_size * segment_length
    num_keys = span + segment_length
    projected_rows = 2 * num_queries + 2 * batch_size * num_keys + num_keys
    multiply_adds = (
        projected_rows * hidden_size * heads
        + 3 * num_queries * num_keys * heads
        + 2 * num_queries * hidden_size * inner_size
    )
    return 2 * multiply_adds


def _count_constants(span, segment_length, batch_size, shapes):
    heads = shapes["num_heads"] * shapes["head_size"]
    rows = 2 * batch_size * span + span + segment_length
    return 2 * rows * shapes["hidden_size"] * heads


def _count_vocabulary(shapes, num_tokens):
    width, hidden_size = shapes["embedding_size"], shapes["hidden_size"]
    clusters = vocabulary_clusters(
        shapes["vocab_size"], shapes["cutoffs"], shapes["div_value"], width
    )
    first, *others = clusters
    widths = [cluster.embedding_size for cluster in clusters]
    in_embedding, in_softmax = [], []  # Widths that are projected to or from.
    if shapes["div_value"] > 1 or width != hidden_size:
        in_softmax = widths
        # Of one width, the clusters are added up and projected once.
        in_embedding = widths if shapes["div_value"] > 1 else [width]
    head = width * (first.size + len(others))
    return (
        2 * num_tokens * hidden_size * sum(in_embedding),
        2 * num_tokens * (hidden_size * sum(in_softmax) + head),
        tuple(2 * cluster.embedding_size * cluster.size for cluster in others),
    )
