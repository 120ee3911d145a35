"""Gemma 4's MTP drafter over a verifier's inputs: K steps of a small network a round.

    t at position P, hidden row of P-1, keys 0..P-1
    step 1: scores of P+1, h'    -> d1 = sample(scores, noise of P+1)
    step 2: the same from d1, h' -> d2 = sample(scores, noise of P+2), ...

Position and keys stay those of the round; only the noise moves on. It is the noise that the target will add at the same
places, which makes both choose alike (see `sampling.sampler`).

Engines differ in the position that rotates the queries: P, where t stands, or P-1, where the hidden row comes from. It
is a setting (`DRAFT_POSITIONS`), and turns the queries by another angle, nothing else. The visible keys are in both
cases those before P that the target's own row at P will see: 0..P-1, and P-W+1..P-1 of a layer with window W. Slots
from P on may hold rejected rows, and older ones may be another sequence's by now; neither is read.

What stands in the inputs comes from another process, maybe in the middle of a change. It is copied before it is
checked, and checked before it is an index: a slot that makes no sense gets no drafts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from tandem.attention.metadata import QueryBatch
from tandem.core.draft_position import AT_P, DRAFT_POSITIONS
from tandem.engine.shared_scales import shared_scales
from tandem.exchange.draft_inputs import NO_BLOCK, DraftInputs
from tandem.kv_cache.group import KvGroup
from tandem.models.gemma4.draft_head import DraftScores
from tandem.models.gemma4.drafter import Gemma4MtpDrafter
from tandem.sampling.rows import SamplingRows
from tandem.sampling.sampler import sample

_GREEDY = SamplingRows.from_params(())  # for a batch of greedy rows, of which no field is read


@dataclass(frozen=True)
class _Slot:
    """A slot as it was when the round began."""

    slot: int
    token_id: int
    position: int
    block_tables: dict[str, list[int]]


class MtpDrafter:
    """Proposes tokens for slots of one `DraftInputs`; keeps nothing between rounds."""

    def __init__(
        self,
        network: Gemma4MtpDrafter,
        inputs: DraftInputs,
        position: str = AT_P,
        suppress_token_ids: Sequence[int] = (),
    ) -> None:
        """Takes the network, which from now on looks tokens up in the inputs' embedding table.

        Args:
            network: of the shape that the inputs have.
            inputs: where the verifier writes.
            position: of the queries, one of `DRAFT_POSITIONS`.
            suppress_token_ids: never drafted.
        """
        network.bind(inputs.embedding)
        self._network = network
        self._inputs = inputs
        self._offset = DRAFT_POSITIONS[position]
        self._device = inputs.embedding.device
        self._suppressed = self._tensor([i for i in suppress_token_ids if i < inputs.spec.vocabulary_size])
        self._kv_scales = shared_scales(inputs.spec)
        self._num_blocks = {layer.group: layer.num_blocks for layer in inputs.spec.layers}

    @torch.inference_mode()
    def propose(self, slots: Sequence[int], num_tokens: int) -> list[list[int]]:
        """Draft tokens of each slot: `num_tokens`, or none where the inputs are unusable."""
        proposed: list[list[int]] = [[] for _ in slots]
        usable = self._read(slots) if num_tokens > 0 else []
        if usable:
            drafts = self._draft([slot for _, slot in usable], num_tokens)
            for (index, _), token_ids in zip(usable, drafts, strict=True):
                proposed[index] = token_ids
        return proposed

    def _draft(self, slots: list[_Slot], num_tokens: int) -> list[list[int]]:
        inputs, network = self._inputs, self._network
        rows = self._tensor([slot.slot for slot in slots])
        token_ids = self._tensor([slot.token_id for slot in slots])
        positions = tuple(slot.position for slot in slots)
        tables = {group.name: [slot.block_tables[group.name] for slot in slots] for group in network.kv_groups}
        batch = QueryBatch((1,) * len(slots), positions, positions, tables)
        metadata = network.backend.prepare(batch, network.kv_groups, inputs.spec.block_size)
        places = metadata.positions  # P of each slot
        if self._offset:
            metadata = replace(metadata, positions=places + self._offset)
        layer_inputs = network.inputs_of(metadata)
        sampling = self._sampling(rows)
        hidden = inputs.hidden.index_select(0, rows)
        chosen = []
        for step in range(1, num_tokens + 1):
            scores, hidden = network.forward(token_ids, hidden, layer_inputs, inputs.kv, self._kv_scales)
            if not sampling.is_all_greedy:
                sampling = sampling.at(places + step)
            token_ids = sample(self._suppress(scores), sampling, scores.token_ids)
            chosen.append(token_ids)
        drafts: list[list[int]] = torch.stack(chosen, 1).tolist()
        return drafts

    def _suppress(self, scores: DraftScores) -> torch.Tensor:  # [B, C] float32
        logits = scores.logits.float()
        if not len(self._suppressed):
            return logits
        if scores.token_ids is None:
            return logits.index_fill_(1, self._suppressed, -torch.inf)
        return logits.masked_fill_(torch.isin(scores.token_ids, self._suppressed), -torch.inf)

    def _sampling(self, rows: torch.Tensor) -> SamplingRows:  # [N] int64
        """The slots' sampling fields, and what the batch needs at most: a vocabulary-wide search is far slower."""
        inputs = self._inputs
        temperature = inputs.temperature.index_select(0, rows)
        is_greedy = [value == 0.0 for value in temperature.tolist()]
        if all(is_greedy):
            return _GREEDY
        top_k = inputs.top_k.index_select(0, rows)
        limits = [limit for limit, greedy in zip(top_k.tolist(), is_greedy, strict=True) if not greedy]
        return SamplingRows.from_tensors(
            temperature,
            top_k,
            inputs.top_p.index_select(0, rows),
            inputs.min_p.index_select(0, rows),
            inputs.seeds.index_select(0, rows),
            rows,  # each step brings its own positions
            max_top_k=max(limits) if min(limits) > 0 else None,
        )

    def _read(self, slots: Sequence[int]) -> list[tuple[int, _Slot]]:
        """The usable ones, each with its index in `slots`."""
        spec = self._inputs.spec
        known = [(index, slot) for index, slot in enumerate(slots) if 0 <= slot < spec.num_slots]
        rows = self._tensor([slot for _, slot in known])
        token_ids = self._inputs.token_ids.index_select(0, rows).tolist()
        positions = self._inputs.positions.index_select(0, rows).tolist()
        usable = []
        for (index, slot), token_id, position in zip(known, token_ids, positions, strict=True):
            if not (0 <= token_id < spec.vocabulary_size and 0 < position <= spec.max_blocks * spec.block_size):
                continue
            tables = {group.name: self._read_table(slot, group, position) for group in self._network.kv_groups}
            if all(tables.values()):
                usable.append((index, _Slot(slot, token_id, position, tables)))
        return usable

    def _read_table(self, slot: int, group: KvGroup, position: int) -> list[int]:
        """The block ids of positions 0..P-1, those out of sight left out; empty if one cannot be right."""
        block_size = self._inputs.spec.block_size
        first_key = 0 if group.window is None else max(0, position - group.window + 1)
        if first_key == position:  # a window of one key sees none before the last token
            return []
        first = first_key // block_size
        visible: list[int] = self._inputs.block_tables[group.name][slot, first : -(-position // block_size)].tolist()
        if min(visible) < 0 or max(visible) >= self._num_blocks[group.name]:
            return []
        return [NO_BLOCK] * first + visible

    def _tensor(self, values: list[int]) -> torch.Tensor:  # [N] int64
        return torch.tensor(values, dtype=torch.int64, device=self._device)
