"""What the device does in a steady round: verify, judge and advance some decoding sequences, without the host.

Everything that the next round starts from stays on the device: tokens, positions, hidden rows, block tables. So the
next round can be launched before anybody has read what came of this one, and all of it can be captured as one graph.

    t at P, d1..dK from the draft slots -> rows at P..P+K -> the target's own tokens -> how many drafts equal them
    -> token, position and hidden row of each slot move on -> [tokens, accepted] for the host to read later
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from tandem.attention.base import DevicePlanner
from tandem.attention.device_batch import DeviceBatch
from tandem.exchange.draft_inputs import NO_BLOCK, DraftInputs
from tandem.kv_cache.storage import KvStorage
from tandem.models.gemma4.target import Gemma4Target
from tandem.sampling.judge import Judge
from tandem.sampling.rows import SamplingRows
from tandem.sampling.sampler import sample


@dataclass(frozen=True)
class RoundShape:
    """What a captured graph is made for."""

    batch: int  # sequences, those that fill it up among them
    num_drafts: int  # K: each sequence has K + 1 rows
    max_position: int  # no row stands beyond it

    @property
    def num_rows(self) -> int:
        """Rows of one sequence."""
        return self.num_drafts + 1


@dataclass(frozen=True)
class Member:
    """A sequence in a round."""

    slot: int
    max_accepted: int  # drafts that may stand, of those that there are
    new_blocks: Sequence[tuple[str, int, int]]  # (group, entry of its block table, block id) that the device lacks


@runtime_checkable
class RoundLeader(Protocol):
    """A planner of a target that other processes compute too."""

    def announce(self, num_sequences: int, num_rows: int, max_position: int, to_capture: bool) -> None:
        """Tells them of a round that is about to be launched, or captured."""
        ...


class SteadyRound:
    """The device's program, a plain function of tensors: run as it is, or captured."""

    def __init__(
        self,
        target: Gemma4Target,
        storage: KvStorage,
        inputs: DraftInputs,
        drafts: torch.Tensor,  # [num_slots, max_draft_tokens] int64, by slot; anything may stand there
        spare_blocks: Mapping[str, int],
        judge: Judge,
    ) -> None:
        """Takes the parts.

        Args:
            target: the network.
            storage: its KV tensors.
            inputs: state of each slot; advanced by every round.
            drafts: where drafters write.
            spare_blocks: block of each group that nobody holds.
            judge: says which drafts stand.
        """
        self._target, self._storage, self._inputs, self._drafts = target, storage, inputs, drafts
        self._planner: DevicePlanner = target.backend  # type: ignore[assignment]
        self._leader = target.backend if isinstance(target.backend, RoundLeader) else None
        self._spare_blocks = spare_blocks
        self._judge = judge
        self._groups = [group.name for group in target.kv_groups]
        self._vocabulary_size = target.config.vocab_size
        self.device = target.embed_tokens.device

    @property
    def spare_slot(self) -> int:
        """The slot of rows that only fill a batch up."""
        return self._inputs.spec.num_slots - 1

    def pack(self, shape: RoundShape, members: Sequence[Member], num_drafts: int) -> list[int]:
        """What the host tells a round: slots, accepted drafts at most, new entries of block tables.

        Only the first `num_drafts` drafts of a sequence are any: there may be room for more, and none of those stands.
        """
        assert 0 < len(members) <= shape.batch and num_drafts <= shape.num_drafts
        spare, num_fill = self.spare_slot, shape.batch - len(members)
        numbers = [member.slot for member in members] + [spare] * num_fill
        numbers += [min(member.max_accepted, num_drafts) for member in members] + [0] * num_fill
        width, room = self._inputs.spec.max_blocks, self._num_entries(shape)
        for name in self._groups:
            entries = [
                (member.slot * width + place, block_id)
                for member in members
                for group, place, block_id in member.new_blocks
                if group == name
            ]
            assert len(entries) <= room, "a round tells of the blocks of its own rows"
            entries += [(spare * width, NO_BLOCK)] * (room - len(entries))
            numbers += [place for place, _ in entries] + [block_id for _, block_id in entries]
        return numbers

    def control_size(self, shape: RoundShape) -> int:
        """Numbers that `pack` returns."""
        return 2 * shape.batch + 2 * len(self._groups) * self._num_entries(shape)

    def announce(self, shape: RoundShape, to_capture: bool = False) -> None:
        """Must come before every launch of a round, and before it is captured: a graph runs no Python."""
        if self._leader:
            self._leader.announce(shape.batch, shape.num_rows, shape.max_position, to_capture)

    @torch.inference_mode()
    def run(
        self,
        shape: RoundShape,
        control: torch.Tensor,  # [control_size] int64, from `pack`
        results: torch.Tensor,  # [batch, K + 2] int64: the target's tokens, then how many drafts stand
    ) -> None:
        """One round. Nothing waits for the device."""
        inputs, num_rows = self._inputs, shape.num_rows
        slots, max_accepted = control[: shape.batch], control[shape.batch : 2 * shape.batch]
        self._tell_blocks(shape, control[2 * shape.batch :])
        positions = inputs.positions[slots]  # [B], P
        drafts = self._drafts[slots, : shape.num_drafts]  # [B, K]
        drafts = torch.where((drafts >= 0) & (drafts < self._vocabulary_size), drafts, 0)
        token_ids = torch.cat((inputs.token_ids[slots].unsqueeze(1), drafts), 1)  # [B, K + 1]
        batch = DeviceBatch(
            slots,
            positions,
            positions + num_rows,
            num_rows,
            shape.max_position,
            inputs.block_tables,
            self._spare_blocks,
        )
        metadata = self._planner.prepare_on_device(batch, self._target.kv_groups, inputs.spec.block_size)
        hidden = self._target.forward(token_ids.flatten(), metadata, self._storage)  # [B * (K + 1), hidden_size]
        logits = self._target.compute_logits(hidden)
        chosen = sample(logits, self._sampling(slots, metadata.positions[: metadata.num_tokens] + 1)).view(-1, num_rows)
        accepted = self._judge(chosen, drafts, max_accepted)  # [B]
        rows = torch.arange(shape.batch, device=self.device) * num_rows + accepted
        # A slot that belongs to nobody goes nowhere.
        moved = torch.where(slots == self.spare_slot, positions, positions + accepted + 1)
        inputs.advance(slots, chosen.flatten()[rows], moved, hidden[rows])
        results[:, :num_rows].copy_(chosen)
        results[:, num_rows].copy_(accepted)

    def _tell_blocks(self, shape: RoundShape, entries: torch.Tensor) -> None:  # [2 * groups * E] int64
        room = self._num_entries(shape)
        for number, name in enumerate(self._groups):
            places, block_ids = entries[2 * number * room : 2 * (number + 1) * room].view(2, room).unbind()
            self._inputs.block_tables[name].view(-1).index_copy_(0, places, block_ids.int())

    def _sampling(
        self,
        slots: torch.Tensor,  # [B] int64
        positions: torch.Tensor,  # [B * (K + 1)] int64, of the tokens being chosen
    ) -> SamplingRows:
        inputs = self._inputs
        return SamplingRows.from_slots(
            inputs.temperature, inputs.top_k, inputs.top_p, inputs.min_p, inputs.seeds, slots, positions
        )

    def _num_entries(self, shape: RoundShape) -> int:
        """Entries of one group that a round can bring: those of two rounds' rows, for each sequence."""
        return shape.batch * (2 * (self._drafts.shape[1] + 1) // self._inputs.spec.block_size + 2)
