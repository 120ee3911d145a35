"""A head that scores a few clusters of the vocabulary: the one of E2B's and E4B's drafters.

    clusters = the top_k with the greatest centroid · row
    candidates = all tokens of those clusters; logit = table[token] · row

With 2048 clusters of 128 tokens and top_k = 32, that reads 2048 + 4096 rows of weights instead of 262144. Source:
transformers' `Gemma4AssistantMaskedEmbedder`, which spreads the candidates over a row of the whole vocabulary; here no
such row exists.
"""

from pathlib import Path

import torch

from tandem.core.errors import CheckpointError
from tandem.models.gemma4.candidate_logits import candidate_logits
from tandem.models.gemma4.draft_head import DraftScores
from tandem.models.gemma4.drafter_config import CentroidConfig
from tandem.models.gemma4.linear import Linear
from tandem.models.gemma4.parameters import Destination, Destinations

_ORDERING = "masked_embedding.token_ordering"


class CentroidHead:
    """Scores the tokens of each row's best clusters."""

    def __init__(
        self, config: CentroidConfig, hidden_size: int, vocab_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Allocates; `arrange` must follow when all is read."""
        self._top_k = config.top_k
        self._centroids = Linear(hidden_size, config.num_centroids, dtype, device)
        self._table = torch.empty(vocab_size, hidden_size, dtype=dtype, device=device)
        shape = (config.num_centroids, vocab_size // config.num_centroids)
        self._token_ids = torch.empty(shape, dtype=torch.int64, device=device)  # of each cluster

    def destinations(self, prefix: str) -> Destinations:
        """The token table, the centroids, and the tokens cluster after cluster."""
        yield f"{prefix}embed_tokens.weight", Destination(tuple(self._table.shape), (self._table,))
        yield "masked_embedding.centroids.weight", self._centroids.destination()
        ordering = self._token_ids.flatten()
        yield _ORDERING, Destination(tuple(ordering.shape), (ordering,))

    def arrange(self, folder: Path) -> None:
        """Puts the table into the order of the clusters, so that a cluster is read in one piece.

        Raises:
            CheckpointError: a token is in no cluster, or in two.
        """
        ordering = self._token_ids.flatten()
        if not ordering.sort().values.equal(torch.arange(len(ordering), device=ordering.device)):
            raise CheckpointError(f"{folder}: {_ORDERING} must hold every token id of the vocabulary once")
        self._table = self._table.index_select(0, ordering)

    def __call__(self, rows: torch.Tensor) -> DraftScores:  # [B, hidden_size], normed
        """Scores of top_k * cluster size candidates, in no order that means anything."""
        clusters = self._centroids(rows).topk(self._top_k, sorted=False).indices  # [B, top_k]
        logits = candidate_logits(rows, self._table, clusters, self._token_ids.shape[1])
        return DraftScores(logits, self._token_ids[clusters].flatten(1))
