"""The frequency clusters of a vocabulary, most frequent tokens first."""

from typing import NamedTuple


class VocabularyCluster(NamedTuple):
    """Tokens `start` … `stop - 1`, embedded in `embedding_size` numbers."""

    start: int
    stop: int
    embedding_size: int

    @property
    def size(self) -> int:
        """Number of tokens."""
        return self.stop - self.start


def vocabulary_clusters(
    vocab_size: int, cutoffs, div_value: int, embedding_size: int
) -> tuple[VocabularyCluster, ...]:
    """Cuts a vocabulary into clusters of falling frequency and width.

    Cluster i holds the tokens from cutoff i - 1 to below cutoff i and is
    embedded in `embedding_size // div_value ** i` numbers:

        vocab_size=60, cutoffs=(10, 30), div_value=2, embedding_size=24
        -> (0, 10, 24), (10, 30, 12), (30, 60, 6)

    Source: Dai et al. (2019), after Grave et al. (2017) and Baevski & Auli
    (2019).

    Args:
        vocab_size: V.
        cutoffs: rising token ids between 0 and V; () = one cluster.
        div_value: by which the width shrinks from a cluster to the next.
        embedding_size: E, width of the first cluster.

    Returns:
        A VocabularyCluster for each of the `len(cutoffs) + 1` clusters.
    """
    ends = (0, *cutoffs, vocab_size)
    return tuple(
        VocabularyCluster(start, stop, embedding_size // div_value**index)
        for index, (start, stop) in enumerate(
            zip(ends[:-1], ends[1:], strict=True)
        )
    )
