"""What a drafter reads: one row a slot, the KV of the shared layers, the target's embedding table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from tandem.core.sampling_params import SamplingParams
from tandem.exchange.layout import ExchangeLayout, Part
from tandem.exchange.spec import ExchangeSpec

NO_BLOCK = -1  # in a block table: released, or not reserved yet
DTYPES = {  # by the names that a layout has for them
    "int32": torch.int32,
    "int64": torch.int64,
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float8_e4m3fn": torch.float8_e4m3fn,
}


@dataclass(frozen=True)
class DraftInputs:
    """Written by the verifier, read by the drafter, in place; in shared memory or in private.

    A slot belongs to one sequence for as long as it runs. Its last token t stands at position P and has no KV yet; keys
    0..P-1 are valid; `hidden` is the target's row at P-1, the one that produced t.
    """

    spec: ExchangeSpec
    token_ids: torch.Tensor  # [S] int64
    positions: torch.Tensor  # [S] int64, P
    hidden: torch.Tensor  # [S, hidden_size]
    block_tables: Mapping[str, torch.Tensor]  # group -> [S, max_blocks] int32
    temperature: torch.Tensor  # [S] float64, 0 = greedy
    top_k: torch.Tensor  # [S] int64, 0 = all
    top_p: torch.Tensor  # [S] float64
    min_p: torch.Tensor  # [S] float64
    seeds: torch.Tensor  # [S] int64
    kv: Mapping[str, torch.Tensor]  # group -> [num_blocks * block_size, 2, num_kv_heads, head_dim]
    embedding: torch.Tensor  # [vocabulary_size, hidden_size]

    def clear(self) -> None:
        """Makes every slot empty, in memory that is all zeros."""
        for table in self.block_tables.values():
            table.fill_(NO_BLOCK)
        self.top_p.fill_(1.0)

    def set_sampling(self, slot: int, params: SamplingParams) -> None:
        """Gives a slot to a sequence that samples with `params`."""
        self.temperature[slot] = params.temperature
        self.top_k[slot] = params.top_k
        self.top_p[slot] = params.top_p
        self.min_p[slot] = params.min_p
        self.seeds[slot] = params.seed

    def set_blocks(self, slot: int, group: str, first: int, block_ids: Sequence[int]) -> None:
        """Writes entries `first`, `first + 1`, ... of a slot's block table."""
        self.block_tables[group][slot, first : first + len(block_ids)] = torch.tensor(block_ids, dtype=torch.int32)

    def advance(
        self,
        slots: torch.Tensor,  # [N] int64
        token_ids: torch.Tensor,  # [N] int64
        positions: torch.Tensor,  # [N] int64
        hidden: torch.Tensor,  # [N, hidden_size]
    ) -> None:
        """Moves slots to their newest token."""
        self.token_ids[slots] = token_ids
        self.positions[slots] = positions
        self.hidden[slots] = hidden


def private_inputs(
    spec: ExchangeSpec,
    kv: Mapping[str, torch.Tensor],  # group -> [num_blocks * block_size, 2, num_kv_heads, head_dim]
    embedding: torch.Tensor,  # [vocabulary_size, hidden_size]
) -> DraftInputs:
    """Inputs that no other process sees, over tensors that exist anyway. Slots start empty."""
    shape, device = (spec.num_slots,), embedding.device
    return DraftInputs(
        spec=spec,
        token_ids=torch.zeros(shape, dtype=torch.int64, device=device),
        positions=torch.zeros(shape, dtype=torch.int64, device=device),
        hidden=torch.zeros((*shape, spec.hidden_size), dtype=DTYPES[spec.dtype], device=device),
        block_tables={
            layer.group: torch.full((*shape, spec.max_blocks), NO_BLOCK, dtype=torch.int32, device=device)
            for layer in spec.layers
        },
        temperature=torch.zeros(shape, dtype=torch.float64, device=device),
        top_k=torch.zeros(shape, dtype=torch.int64, device=device),
        top_p=torch.ones(shape, dtype=torch.float64, device=device),
        min_p=torch.zeros(shape, dtype=torch.float64, device=device),
        seeds=torch.zeros(shape, dtype=torch.int64, device=device),
        kv=kv,
        embedding=embedding,
    )


def mapped_inputs(
    layout: ExchangeLayout,
    data: torch.Tensor,  # [target_bytes] uint8, or more
) -> DraftInputs:
    """Inputs in a target file or in memory that begins like one, as they stand there."""
    parts = {part.name: mapped_part(part, data) for part in layout.target_parts}
    groups = [layer.group for layer in layout.spec.layers]
    return DraftInputs(
        spec=layout.spec,
        token_ids=parts["token_ids"],
        positions=parts["positions"],
        hidden=parts["hidden"],
        block_tables={group: parts[f"block_tables/{group}"] for group in groups},
        temperature=parts["temperature"],
        top_k=parts["top_k"],
        top_p=parts["top_p"],
        min_p=parts["min_p"],
        seeds=parts["seeds"],
        kv={group: parts[f"kv/{group}"] for group in groups},
        embedding=parts["embedding"],
    )


def mapped_part(
    part: Part,
    data: torch.Tensor,  # [N] uint8
) -> torch.Tensor:  # part.shape
    """One tensor in the bytes that hold it."""
    return data[part.offset : part.offset + part.num_bytes].view(DTYPES[part.dtype]).view(part.shape)
