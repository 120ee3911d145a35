"""How one rank of a shared target leads the others, and how they follow.

Whoever plans a step on the leader plans it on all ranks; its tokens travel with the step itself, in `forward`. So
nothing above the network knows of ranks, and a rank that waits for a step waits on a pipe, for as long as it takes,
and not within a library that would give up.
"""

from collections.abc import Callable, Iterable, Sequence

import torch

from tandem.attention.base import AttentionBackend, AttentionMetadata
from tandem.attention.batch_message import from_numbers, to_numbers
from tandem.attention.metadata import QueryBatch
from tandem.kv_cache.group import KvGroup
from tandem.kv_cache.scales import UNSCALED, KvScales
from tandem.kv_cache.storage import KvStorage
from tandem.models.gemma4.target import Gemma4Target
from tandem.models.ranks import ProcessRanks

Tell = Callable[[Sequence[int]], None]  # sends numbers to all other ranks


class LeadingBackend:
    """The leader's `AttentionBackend`. What it plans must be computed, once, before it plans again."""

    def __init__(self, backend: AttentionBackend, ranks: ProcessRanks, tell: Tell) -> None:
        """Plans with `backend`, and tells the other ranks."""
        self._backend, self._ranks, self._tell = backend, ranks, tell

    def prepare(self, batch: QueryBatch, groups: Iterable[KvGroup], block_size: int) -> AttentionMetadata:
        """Plans a step on all ranks.

        Raises:
            EngineFault: the ranks have lost each other.
        """
        groups = tuple(groups)
        metadata = self._backend.prepare(batch, groups, block_size)
        self._ranks.begin()
        self._tell(to_numbers(batch, [group.name for group in groups]))
        return metadata

    def attend(
        self,
        query: torch.Tensor,  # [num_rows, num_heads, head_dim]
        kv: torch.Tensor,  # [num_slots, 2, num_kv_heads, head_dim]
        plan: object,
        scales: KvScales = UNSCALED,
    ) -> torch.Tensor:  # [num_rows, num_heads, head_dim]
        """This rank's heads."""
        return self._backend.attend(query, kv, plan, scales)


def lead(target: Gemma4Target, ranks: ProcessRanks, tell: Tell) -> None:
    """Makes a target that has the leader's share compute every step on all ranks."""
    target.backend = LeadingBackend(target.backend, ranks, tell)


def follow(target: Gemma4Target, storage: KvStorage, steps: Iterable[Sequence[int]]) -> None:
    """Computes another rank's share of the steps that the leader tells of, until there are no more."""
    names, device = [group.name for group in target.kv_groups], target.embed_tokens.device
    for numbers in steps:
        batch = from_numbers(numbers, names)
        metadata = target.backend.prepare(batch, target.kv_groups, storage.block_size)
        token_ids = torch.empty(batch.num_tokens, dtype=torch.int64, device=device)
        target.forward(token_ids, metadata, storage)
