"""Token embedding whose width falls with a token's frequency."""

import keras
from keras import ops

from official_lrm.layers.vocabulary_clusters import vocabulary_clusters


@keras.saving.register_keras_serializable("official_lrm")
class AdaptiveEmbedding(keras.layers.Layer):
    """Looks tokens up in the table of their cluster and scales by sqrt(D).

    ```
    embedding(t) = sqrt(D) * table_i[t - start_i] P_i      t in cluster i
    ```

    `tables` holds a table [n_i, E_i] for each cluster (`cutoffs` separate
    them; see `vocabulary_clusters`). `projections` holds P_i [E_i, D] for each
    cluster if `div_value` > 1; one [E, D] for all of them if `div_value` is 1
    and E differs from D; none otherwise, which is the plain embedding.

    Source: Dai et al. (2019); the clusters: Baevski & Auli (2019).

    Args:
        vocab_size: V.
        hidden_size: D.
        cutoffs: rising token ids between 0 and V; () = one cluster.
        div_value: by which the width shrinks from a cluster to the next.
        embedding_size: E, width of the first cluster; None = D.
        initializer_stddev: of the tables, normal.
        projection_initializer_stddev: of the projections, normal.
    """

    def __init__(
        self,
        vocab_size,
        hidden_size,
        cutoffs=(),
        div_value=1,
        embedding_size=None,
        initializer_stddev=0.02,
        projection_initializer_stddev=0.01,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.cutoffs = tuple(cutoffs)
        self.div_value = div_value
        self.embedding_size = embedding_size or hidden_size
        self.initializer_stddev = initializer_stddev
        self.projection_initializer_stddev = projection_initializer_stddev
        self.clusters = vocabulary_clusters(
            vocab_size, self.cutoffs, div_value, self.embedding_size
        )

    def build(self, tokens_shape=None):
        """Creates the tables and the projections."""
        del tokens_shape
        self.tables = [
            self.add_weight(
                name=f"table_{index}",
                shape=(cluster.size, cluster.embedding_size),
                initializer=keras.initializers.RandomNormal(
                    stddev=self.initializer_stddev
                ),
            )
            for index, cluster in enumerate(self.clusters)
        ]
        projected = self.clusters
        if self.div_value == 1:
            projected = self.clusters[: self.embedding_size != self.hidden_size]
        self.projections = [
            self.add_weight(
                name=f"projection_{index}",
                shape=(cluster.embedding_size, self.hidden_size),
                initializer=keras.initializers.RandomNormal(
                    stddev=self.projection_initializer_stddev
                ),
            )
            for index, cluster in enumerate(projected)
        ]
        self.built = True

    def projection(self, index):
        """P_i of a cluster, a variable [E_i, D]; None where there is none."""
        if not self.projections:
            return None
        return self.projections[0 if self.div_value == 1 else index]

    def call(self, tokens):
        """Embeds [B, T] integer tokens as [B, T, D]."""
        # ops.take counts negative indices from the end; beyond the end
        # TensorFlow's CPU kernel refuses them as it does all others.
        tokens = ops.where(tokens < 0, self.vocab_size, tokens)
        embedded = [
            self._look_up(tokens, index) for index in range(len(self.clusters))
        ]
        if len(self.projections) == 1:  # Of all clusters together.
            outputs = ops.matmul(sum(embedded), self.projections[0])
        elif self.projections:
            outputs = sum(
                ops.matmul(x, projection)
                for x, projection in zip(
                    embedded, self.projections, strict=True
                )
            )
        else:
            outputs = sum(embedded)
        return outputs * self.hidden_size**0.5

    def _look_up(self, tokens, index):
        # [B, T, E_i], zero where a token is of another cluster. Only the first
        # and the last cluster see tokens that no cluster has.
        table = self.tables[index]
        if len(self.clusters) == 1:
            return ops.take(table, tokens, axis=0)
        cluster = self.clusters[index]
        inside = tokens >= cluster.start
        if cluster.stop != self.vocab_size:
            inside = ops.logical_and(inside, tokens < cluster.stop)
        rows = ops.where(inside, tokens - cluster.start, 0)
        return ops.where(inside[..., None], ops.take(table, rows, axis=0), 0)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "cutoffs": list(self.cutoffs),
            "div_value": self.div_value,
            "embedding_size": self.embedding_size,
            "initializer_stddev": self.initializer_stddev,
            "projection_initializer_stddev": self.projection_initializer_stddev,
        }
