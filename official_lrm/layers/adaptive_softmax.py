"""Softmax over a vocabulary, in clusters of falling frequency."""

import keras
from keras import ops

from official_lrm.layers.chunked_logsumexp import chunked_logsumexp
from official_lrm.layers.vocabulary_clusters import vocabulary_clusters


@keras.saving.register_keras_serializable("official_lrm")
class AdaptiveSoftmax(keras.layers.Layer):
    """Next-token probabilities from hidden states.

    Without `cutoffs`, logits over the vocabulary: `h P^T E^T + b`.

    With them, a token of the first cluster competes with its cluster's tokens
    and with one logit for each of the others; a token of another cluster i
    takes that logit's share and competes within its cluster:

    ```
    log p(t) = log softmax(h P_0^T [E_0; C]^T + [b_0; c])[t]        t in 0
    log p(t) = log softmax(h P_0^T [E_0; C]^T + [b_0; c])[n_0 + i - 1]
             + log softmax(h P_i^T E_i^T + b_i)[t - start_i]        t in i > 0
    ```

    The logit of tail cluster i is row i - 1 of C, as in the TensorFlow
    reference and Hugging Face; the PyTorch reference takes the rows from the
    end.

    The tables E_i are the embedding's unless `tie_embeddings` is False. The
    projections P_i [E_i, D] are the embedding's but for the first, which is
    the softmax's own; with `share_projections` False all are its own. There
    are projections where the embedding has them.

    Always runs in float32 (or float64): the sum over the vocabulary and the
    loss are where half precision hurts most.

    Source: Dai et al. (2019), after Grave et al. (2017).

    Args:
        vocab_size: V.
        hidden_size: D.
        cutoffs: rising token ids between 0 and V; () = one cluster.
        div_value: by which the width shrinks from a cluster to the next.
        embedding_size: E, width of the first cluster; None = D.
        tie_embeddings: whether the tables are the embedding's.
        share_projections: whether all projections but the first are.
        initializer_stddev: of own tables, normal.
        projection_initializer_stddev: of own projections, normal.
        dtype: "float32" or "float64".
    """

    def __init__(
        self,
        vocab_size,
        hidden_size,
        cutoffs=(),
        div_value=1,
        embedding_size=None,
        tie_embeddings=True,
        share_projections=True,
        initializer_stddev=0.02,
        projection_initializer_stddev=0.01,
        dtype="float32",
        **kwargs,
    ):
        super().__init__(dtype=dtype, **kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.cutoffs = tuple(cutoffs)
        self.div_value = div_value
        self.embedding_size = embedding_size or hidden_size
        self.tie_embeddings = tie_embeddings
        self.share_projections = share_projections
        self.initializer_stddev = initializer_stddev
        self.projection_initializer_stddev = projection_initializer_stddev
        self.clusters = vocabulary_clusters(
            vocab_size, self.cutoffs, div_value, self.embedding_size
        )

    def build(self, hidden_shape=None):
        """Creates the weights that are not the embedding's."""
        del hidden_shape

        def weight(name, shape, stddev=None):
            initializer = "zeros"
            if stddev is not None:
                initializer = keras.initializers.RandomNormal(stddev=stddev)
            return self.add_weight(
                name=name, shape=shape, initializer=initializer
            )

        self.bias = weight("bias", (self.vocab_size,))
        if self.cutoffs:
            num_tails = len(self.cutoffs)
            self.cluster_kernel = weight(
                "cluster_kernel", (num_tails, self.embedding_size)
            )
            self.cluster_bias = weight("cluster_bias", (num_tails,))
        self.tables = []
        if not self.tie_embeddings:
            self.tables = [
                weight(
                    f"table_{index}",
                    (cluster.size, cluster.embedding_size),
                    self.initializer_stddev,
                )
                for index, cluster in enumerate(self.clusters)
            ]
        own = ()
        if self.div_value != 1 or self.embedding_size != self.hidden_size:
            own = self.clusters[: 1 if self.share_projections else None]
        self.projections = [
            weight(
                f"projection_{index}",
                (cluster.embedding_size, self.hidden_size),
                self.projection_initializer_stddev,
            )
            for index, cluster in enumerate(own)
        ]
        self.built = True

    def call(self, hidden, embedding, targets=None):
        """Computes logits, or log-probabilities.

        Args:
            hidden: [B, T, D] float.
            embedding: the AdaptiveEmbedding whose tables and projections are
                shared.
            targets: [B, T] integer tokens, or None.

        Returns:
            Without targets, [B, T, V] float32 (float64): without cutoffs
            unnormalised logits, with them log-probabilities. With targets,
            [B, T], their log-probabilities, natural logarithms; then only the
            clusters that the targets are in are computed, and with cutoffs
            nothing of size [B, T, V] exists.
        """
        hidden = ops.cast(hidden, self.compute_dtype)
        if not self.cutoffs:
            logits = self._logits(hidden, embedding, 0)
            if targets is None:
                return logits
            return -ops.sparse_categorical_crossentropy(
                targets, logits, from_logits=True
            )
        if targets is None:
            return self._all_log_probabilities(hidden, embedding)
        shape = ops.shape(targets)
        log_probs = self._target_log_probabilities(
            ops.reshape(hidden, (-1, self.hidden_size)),
            ops.reshape(ops.cast(targets, "int32"), (-1,)),
            embedding,
        )
        return ops.reshape(log_probs, shape)

    def _all_log_probabilities(self, hidden, embedding):
        first = self._project(hidden, embedding, 0)
        kernel, bias = self._kernel(embedding, 0)
        kernel = ops.concatenate([kernel, self.cluster_kernel])
        bias = ops.concatenate([bias, self.cluster_bias])
        head = ops.log_softmax(self._product(first, kernel) + bias)
        size = self.clusters[0].size
        outputs = [head[..., :size]]
        for index in range(1, len(self.clusters)):
            tail = ops.log_softmax(self._logits(hidden, embedding, index))
            share = head[..., size + index - 1, None]
            outputs.append(share + tail)
        return ops.concatenate(outputs, axis=-1)

    def _target_log_probabilities(self, hidden, targets, embedding):
        # [R, D], [R] -> [R]. Rows in the order of their targets' clusters: a
        # cluster's rows are then a range.
        # Negative targets are refused like those beyond the vocabulary, by
        # TensorFlow's CPU kernel for ops.take.
        targets = ops.where(targets < 0, self.vocab_size, targets)
        cluster_of = sum(
            ops.cast(targets >= cutoff, "int32") for cutoff in self.cutoffs
        )
        order = ops.argsort(cluster_of)
        hidden = ops.take(hidden, order, axis=0)
        targets = ops.take(targets, order, axis=0)
        cluster_of = ops.take(cluster_of, order, axis=0)

        # The head: all rows compete with the first cluster's tokens.
        first = self._project(hidden, embedding, 0)
        kernel, bias = self._kernel(embedding, 0)
        shares = self._product(first, self.cluster_kernel) + self.cluster_bias
        normalizer = ops.logaddexp(
            chunked_logsumexp(first, kernel, bias),
            ops.logsumexp(shares, axis=-1),
        )
        logits = self._target_logits(first, kernel, bias, targets, cluster_of)
        for index in range(1, len(self.clusters)):
            inside = cluster_of == index
            projected = self._project(hidden, embedding, index)
            kernel, bias = self._kernel(embedding, index)
            rows = ops.cast(inside, "int32")
            tail = self._target_logits(
                projected, kernel, bias, targets, cluster_of, index
            ) - chunked_logsumexp(
                projected,
                kernel,
                bias,
                start=ops.sum(ops.cast(cluster_of < index, "int32")),
                count=ops.sum(rows),
            )
            logits = logits + ops.where(inside, shares[:, index - 1] + tail, 0)
        log_probs = logits - normalizer
        return ops.take(log_probs, ops.argsort(order), axis=0)

    def _target_logits(self, inputs, kernel, bias, targets, clusters, index=0):
        # [R]: logits of the targets in one cluster, 0 for all other rows.
        inside = clusters == index
        rows = ops.where(inside, targets - self.clusters[index].start, 0)
        logits = ops.sum(inputs * ops.take(kernel, rows, axis=0), axis=-1)
        return ops.where(inside, logits + ops.take(bias, rows, axis=0), 0)

    def _logits(self, hidden, embedding, index):
        kernel, bias = self._kernel(embedding, index)
        return (
            self._product(self._project(hidden, embedding, index), kernel)
            + bias
        )

    def _project(self, hidden, embedding, index):
        # [..., D] -> [..., E_i]
        projection = embedding.projection(index)
        if projection is None:
            return hidden
        if index < len(self.projections):
            projection = self.projections[index]
        return self._product(hidden, self._cast(projection))

    def _kernel(self, embedding, index):
        # [n_i, E_i] and [n_i]
        tables = embedding.tables if self.tie_embeddings else self.tables
        cluster = self.clusters[index]
        bias = self.bias
        if self.cutoffs:
            bias = bias[cluster.start : cluster.stop]
        return self._cast(tables[index]), self._cast(bias)

    def _cast(self, variable):
        value = ops.convert_to_tensor(variable)
        return ops.cast(value, self.compute_dtype)

    @staticmethod
    def _product(inputs, kernel):
        return ops.matmul(inputs, ops.transpose(kernel))

    def load_own_variables(self, store):
        """Reads the weights, of files of the first release too."""
        # Keras names a layer's place after its class, then TokenSoftmax.
        if not store.keys():
            store = store.get("layers/token_softmax")
        super().load_own_variables(store)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "cutoffs": list(self.cutoffs),
            "div_value": self.div_value,
            "embedding_size": self.embedding_size,
            "tie_embeddings": self.tie_embeddings,
            "share_projections": self.share_projections,
            "initializer_stddev": self.initializer_stddev,
            "projection_initializer_stddev": self.projection_initializer_stddev,
        }
