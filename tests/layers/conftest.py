"""The adaptive layers, with weights that matter, and their equations."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from official_lrm.layers import (
    AdaptiveEmbedding,
    AdaptiveSoftmax,
    chunked_logsumexp,
)

# Clusters of 7, 13 and 17 tokens.
V, D = 37, 19
CUTOFFS = (7, 20)

_OF_SOFTMAX = ("tie_embeddings", "share_projections")


@pytest.fixture(scope="session")
def make_layers():
    """Makes an AdaptiveEmbedding and an AdaptiveSoftmax of random weights."""

    def make(dtype="float64", seed=2, **options):
        of_embedding = {
            name: value
            for name, value in options.items()
            if name not in _OF_SOFTMAX
        }
        embedding = AdaptiveEmbedding(V, D, dtype=dtype, **of_embedding)
        softmax = AdaptiveSoftmax(
            V,
            D,
            dtype="float64" if dtype == "float64" else "float32",
            **options,
        )
        rng = np.random.default_rng(seed)
        for layer in (embedding, softmax):
            layer.build()
            for weight in layer.weights:
                weight.assign(rng.normal(size=weight.shape) * 0.6)
        return embedding, softmax

    return make


@pytest.fixture(scope="session")
def make_hidden():
    def make(batch_size, length, seed=3, dtype="float64"):
        rng = np.random.default_rng(seed)
        return rng.normal(size=(batch_size, length, D)).astype(dtype)

    return make


@pytest.fixture
def max_elements(monkeypatch):
    """Sets the number of logits that a chunk has at most."""
    module = sys.modules[chunked_logsumexp.__module__]

    def change(value):
        monkeypatch.setattr(module, "_MAX_ELEMENTS", value)

    return change


def _values(layer):
    """NumPy copies of a layer's weights."""
    names = ("tables", "projections", "bias", "cluster_kernel", "cluster_bias")
    values = {}
    for name in names:
        value = getattr(layer, name, None)
        if isinstance(value, list):
            values[name] = [np.array(x, "float64") for x in value]
        elif value is not None:
            values[name] = np.array(value, "float64")
    return SimpleNamespace(**values)


class Equations:
    """What the docstrings of the two layers say, one token at a time.

    `embedding` and `softmax` hold their weights as float64 arrays that a test
    may change.
    """

    def __init__(self, embedding, softmax):
        self.options = softmax.get_config()
        self.embedding, self.softmax = _values(embedding), _values(softmax)
        self.starts = [0, *self.options["cutoffs"]]

    def cluster(self, token):
        return sum(start <= token for start in self.starts) - 1

    def embed(self, tokens):
        outputs = np.zeros((*tokens.shape, D))
        for place, token in np.ndenumerate(tokens):
            i = self.cluster(token)
            vector = self.embedding.tables[i][token - self.starts[i]]
            if self.options["div_value"] > 1:
                vector = vector @ self.embedding.projections[i]
            elif self.options["embedding_size"] != D:
                vector = vector @ self.embedding.projections[0]
            outputs[place] = np.sqrt(D) * vector
        return outputs

    def project(self, state, i):
        """h P_i^T."""
        by_cluster = self.options["div_value"] > 1
        if not by_cluster and self.options["embedding_size"] == D:
            return state
        if i == 0 or not self.options["share_projections"]:
            return state @ self.softmax.projections[i].T
        return state @ self.embedding.projections[i if by_cluster else 0].T

    def kernel(self, i):
        layer = self.embedding
        if not self.options["tie_embeddings"]:
            layer = self.softmax
        return layer.tables[i]

    def cluster_logits(self, state, i):
        projected = self.project(state, i)
        return [
            projected @ row + self.softmax.bias[self.starts[i] + index]
            for index, row in enumerate(self.kernel(i))
        ]

    def logits(self, hidden):
        """Of a softmax without cutoffs, [B, T, V]."""
        return np.array(
            [[self.cluster_logits(state, 0) for state in row] for row in hidden]
        )

    def all_log_probs(self, hidden):
        """[B, T, V]."""
        outputs = np.zeros((*hidden.shape[:2], V))
        for place in np.ndindex(*hidden.shape[:2]):
            state = hidden[place]
            head = self.cluster_logits(state, 0)
            size = len(head)
            for i in range(1, len(self.starts)):
                head.append(
                    self.project(state, 0) @ self.softmax.cluster_kernel[i - 1]
                    + self.softmax.cluster_bias[i - 1]
                )
            head = log_softmax(head)
            log_probs = list(head[:size])
            for i in range(1, len(self.starts)):
                tail = log_softmax(self.cluster_logits(state, i))
                log_probs.extend(head[size + i - 1] + tail)
            outputs[place] = log_probs
        return outputs

    def log_probs(self, hidden, targets):
        """[B, T]."""
        log_probs = self.all_log_probs(hidden)
        return np.array(
            [
                [log_probs[b, t, targets[b, t]] for t in range(len(targets[b]))]
                for b in range(len(targets))
            ]
        )


def log_softmax(logits):
    logits = np.array(logits)
    return logits - np.log(np.sum(np.exp(logits)))


@pytest.fixture(scope="session")
def equations():
    return Equations
