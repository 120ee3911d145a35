"""A target over a paged cache as an engine would run it: scattered and released blocks, NaN wherever nobody wrote."""

import random
from collections.abc import Mapping

import torch

from tandem.attention.metadata import QueryBatch
from tandem.kv_cache.group import KvGroup
from tandem.kv_cache.storage import KvStorage
from tandem.models.gemma4.target import Gemma4Target

BLOCK_SIZE = 4
RELEASED = -1


class PagedRunner:
    """Runs steps of several sequences, each named by its key."""

    def __init__(
        self, target: Gemma4Target, num_blocks: int = 200, seed: int = 0, kv_dtype: torch.dtype | None = None
    ) -> None:
        self.target = target
        self.kv = KvStorage(
            target.stored_groups,
            {g.name: num_blocks for g in target.kv_groups},
            BLOCK_SIZE,
            kv_dtype or target.embed_tokens.dtype,
            "cpu",
            scales=target.kv_scales(kv_dtype or target.embed_tokens.dtype),
        )
        self.lengths: dict[str, int] = {}  # tokens with valid KV
        self.tables: dict[str, dict[str, list[int]]] = {g.name: {} for g in target.kv_groups}
        self._free = {g.name: list(range(num_blocks)) for g in target.kv_groups}
        for free in self._free.values():
            random.Random(seed).shuffle(free)
        for group in target.kv_groups:
            self._poison(group, self._free[group.name])

    def step(self, tokens: Mapping[str, list[int]]) -> dict[str, torch.Tensor]:  # -> [len(tokens), hidden] each
        """Runs rows of some sequences after what each has; all of them then have valid KV."""
        for name, token_ids in tokens.items():
            self._reserve(name, self.lengths.get(name, 0) + len(token_ids))
        lens = tuple(len(token_ids) for token_ids in tokens.values())
        starts = tuple(self.lengths.get(name, 0) for name in tokens)
        ends = tuple(start + length for start, length in zip(starts, lens, strict=True))
        tables = {group: [by_name[name] for name in tokens] for group, by_name in self.tables.items()}
        metadata = self.target.backend.prepare(
            QueryBatch(lens, starts, ends, tables), self.target.kv_groups, BLOCK_SIZE
        )
        flat = torch.tensor([token_id for token_ids in tokens.values() for token_id in token_ids])
        hidden = self.target.forward(flat, metadata, self.kv)
        self.lengths |= dict(zip(tokens, ends, strict=True))
        for name in tokens:
            self._release(name)
        return dict(zip(tokens, hidden.split(lens), strict=True))

    def reject(self, name: str, num_tokens: int) -> None:
        """Takes back the last rows of a sequence; their slots keep what was written."""
        self.lengths[name] -= num_tokens

    def drafter_batch(self, names: list[str]) -> QueryBatch:
        """One row a sequence at its length, which sees all that has valid KV."""
        lengths = tuple(self.lengths[name] for name in names)
        tables = {group: [by_name[name] for name in names] for group, by_name in self.tables.items()}
        return QueryBatch((1,) * len(names), lengths, lengths, tables)

    @property
    def drafter_kv(self) -> dict[str, torch.Tensor]:
        return {group: self.kv[layer_id] for group, layer_id in self.target.drafter_layers.items()}

    def _reserve(self, name: str, num_tokens: int) -> None:
        for group, by_name in self.tables.items():
            table = by_name.setdefault(name, [])
            while len(table) * BLOCK_SIZE < num_tokens:
                table.append(self._free[group].pop())

    def _release(self, name: str) -> None:
        """Blocks that no later row can see go back, and are made unreadable; four rows may still be taken back."""
        for group in self.target.kv_groups:
            if group.window is None:
                continue
            oldest = max(0, self.lengths[name] - 4 - group.window + 1)
            table = self.tables[group.name][name]
            released = [block_id for block_id in table[: oldest // BLOCK_SIZE] if block_id != RELEASED]
            table[: oldest // BLOCK_SIZE] = [RELEASED] * (oldest // BLOCK_SIZE)
            self._poison(group, released)
            self._free[group.name][:0] = released

    def _poison(self, group: KvGroup, block_ids: list[int]) -> None:
        for layer_id in group.layer_ids:
            blocks = self.kv[layer_id].view(-1, BLOCK_SIZE, *self.kv[layer_id].shape[1:])
            blocks[block_ids] = torch.nan
