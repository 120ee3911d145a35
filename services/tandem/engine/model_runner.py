"""One step on the device: rows in, chosen tokens out.

The hot path. Nothing here may look at a clock, a lock or a queue, or wait for the device before `run` has asked for
everything; what a sequence is and whether it goes on is decided elsewhere.
"""

from collections.abc import Sequence as Steps

import torch

from tandem.attention.metadata import QueryBatch
from tandem.core.sequence import Sequence
from tandem.engine.shared_tables import SharedTables
from tandem.engine.step import Chosen, ScheduledSequence, TokenLogprob
from tandem.exchange.draft_inputs import DraftInputs
from tandem.kv_cache.kv_allocator import KvAllocator
from tandem.kv_cache.storage import KvStorage
from tandem.models.gemma4.target import Gemma4Target
from tandem.sampling.grammar_masks import GrammarMasks
from tandem.sampling.judge import Judge, judge
from tandem.sampling.logprobs import Logprobs, logprobs
from tandem.sampling.penalties import LogitAdjustments
from tandem.sampling.rows import SamplingRows
from tandem.sampling.sampler import sample

_MAX_LOGIT_ROWS = 128  # of prompt log-probabilities at a time: bounds [rows, vocabulary]


class ModelRunner:
    """The target network over its KV cache, and the drafter's inputs."""

    def __init__(
        self,
        target: Gemma4Target,
        storage: KvStorage,
        kv: KvAllocator,
        inputs: DraftInputs,
        tables: SharedTables,
        judge: Judge = judge,
    ) -> None:
        """Takes the parts.

        Args:
            target: the network.
            storage: its KV tensors.
            kv: who holds which blocks of them.
            inputs: where the drafter reads; `inputs.kv` are the tensors of `storage` that it shares.
            tables: what `inputs` has been told of the block tables.
            judge: says which drafts stand.
        """
        self.vocabulary_size = target.config.vocab_size
        self._target = target
        self._storage = storage
        self._kv = kv
        self._inputs = inputs
        self._device = target.embed_tokens.device
        self._grammar_masks = GrammarMasks(self.vocabulary_size, self._device)
        self._tables = tables
        self._judged_by = judge
        self._adjustments: dict[int, LogitAdjustments | None] = {}  # by slot

    def enter(self, sequence: Sequence, slot: int) -> None:
        """A sequence takes a slot: for the first time, or again after a preemption.

        Raises:
            InvalidRequest: it biases a token outside the vocabulary.
        """
        self._adjustments[slot] = LogitAdjustments.for_sequence(sequence, self.vocabulary_size, self._device)
        self._tables.enter(slot)
        self._inputs.set_sampling(slot, sequence.sampling)

    @torch.inference_mode()
    def run(self, step: Steps[ScheduledSequence]) -> tuple[list[Chosen | None], list[list[TokenLogprob]]]:
        """Computes a step and moves the drafter's inputs on.

        Returns:
            For each sequence of the step: what was chosen, None if its prompt is not complete yet; and the
            log-probabilities of the prompt tokens that follow its rows, if it asked for those.
        """
        # 1) One forward pass over all rows.
        hidden = self._forward(step)  # [T, hidden_size]
        prompt_logprobs = self._prompt_logprobs(step, hidden)
        first_rows, num_rows = [], 0
        for scheduled in step:
            first_rows.append(num_rows + scheduled.num_committed_rows - 1)  # of the last committed token
            num_rows += scheduled.num_rows
        chosen_from = [index for index, scheduled in enumerate(step) if scheduled.is_chosen_from]
        if not chosen_from:
            return [None] * len(step), prompt_logprobs
        # 2) The target's own token at the last committed token and at each draft.
        verified = [step[index] for index in chosen_from]
        rows = [
            first_rows[index] + offset
            for index in chosen_from
            for offset in range(len(step[index].draft_token_ids) + 1)
        ]
        logits = self._target.compute_logits(hidden[self._tensor(rows)])  # [R, V]
        token_ids = sample(
            self._confine(verified, self._adjust(verified, logits)), self._sampling_rows(verified)
        )  # [R]
        # 3) Judge: how many drafts of each equal it.
        first_chosen = _offsets([len(scheduled.draft_token_ids) + 1 for scheduled in verified])
        num_accepted = self._judge(verified, token_ids, first_chosen)  # [S]
        # 4) Advance what the drafter reads, to the newest token and the hidden row that produced it.
        last_rows = self._tensor([first_rows[index] for index in chosen_from]) + num_accepted
        next_positions = self._tensor([len(scheduled.sequence.committed) for scheduled in verified]) + num_accepted
        newest = token_ids[self._tensor(first_chosen) + num_accepted]
        slots = self._tensor([scheduled.slot for scheduled in verified])
        self._share_blocks(step)
        self._inputs.advance(slots, newest, next_positions, hidden[last_rows])
        self._count(verified, token_ids, num_accepted, first_chosen)
        # 5) Tell the host.
        chosen = self._tell(verified, logits, token_ids, num_accepted.tolist(), first_chosen)
        results: list[Chosen | None] = [None] * len(step)
        for index, result in zip(chosen_from, chosen, strict=True):
            results[index] = result
        return results, prompt_logprobs

    def _forward(self, step: Steps[ScheduledSequence]) -> torch.Tensor:  # [T, hidden_size]
        batch = QueryBatch(
            query_lens=tuple(scheduled.num_rows for scheduled in step),
            start_positions=tuple(scheduled.start for scheduled in step),
            num_keys=tuple(scheduled.start + scheduled.num_rows for scheduled in step),
            block_tables={
                group.name: [self._kv.block_ids(scheduled.sequence.sequence_id, group.name) for scheduled in step]
                for group in self._target.kv_groups
            },
        )
        metadata = self._target.backend.prepare(batch, self._target.kv_groups, self._kv.block_size)
        token_ids = self._tensor([token_id for scheduled in step for token_id in scheduled.token_ids])
        return self._target.forward(token_ids, metadata, self._storage)

    def _adjust(
        self,
        verified: Steps[ScheduledSequence],
        logits: torch.Tensor,  # [R, V]; left as it is, for log-probabilities
    ) -> torch.Tensor:  # [R, V]
        adjustments = [self._adjustments[scheduled.slot] for scheduled in verified]
        if not any(adjustments):
            return logits
        pieces = torch.split(logits, [len(scheduled.draft_token_ids) + 1 for scheduled in verified])
        return torch.cat(
            [
                adjustment.apply(piece, self._tensor(scheduled.draft_token_ids)) if adjustment else piece
                for scheduled, adjustment, piece in zip(verified, adjustments, pieces, strict=True)
            ]
        )

    def _confine(
        self,
        verified: Steps[ScheduledSequence],
        logits: torch.Tensor,  # [R, V]
    ) -> torch.Tensor:  # [R, V]
        return self._grammar_masks.apply(
            logits, [(scheduled.sequence.grammar, scheduled.draft_token_ids) for scheduled in verified]
        )

    def _sampling_rows(self, verified: Steps[ScheduledSequence]) -> SamplingRows:
        return SamplingRows.from_params(
            [
                (scheduled.sequence.sampling, len(scheduled.sequence.committed) + offset)
                for scheduled in verified
                for offset in range(len(scheduled.draft_token_ids) + 1)
            ],
            self._device,
        )

    def _judge(
        self,
        verified: Steps[ScheduledSequence],
        token_ids: torch.Tensor,  # [R] int64
        first_chosen: list[int],
    ) -> torch.Tensor:  # [S] int64
        num_drafts = [len(scheduled.draft_token_ids) for scheduled in verified]
        most = max(num_drafts)
        # Rows and drafts of each sequence, padded to the longest; the judge looks at `num_drafts` of them.
        rows = [
            first + min(offset, count)
            for first, count in zip(first_chosen, num_drafts, strict=True)
            for offset in range(most + 1)
        ]
        drafts = [
            [*scheduled.draft_token_ids, *[0] * (most - count)]
            for scheduled, count in zip(verified, num_drafts, strict=True)
        ]
        return self._judged_by(
            token_ids[self._tensor(rows)].view(len(verified), most + 1),
            self._tensor(drafts).view(len(verified), most),
            self._tensor(num_drafts),
        )

    def _share_blocks(self, step: Steps[ScheduledSequence]) -> None:
        """Writes the entries of block tables that are new since the sequence's last step."""
        for scheduled in step:
            for new in self._tables.take_new(scheduled.sequence.sequence_id, scheduled.slot):
                self._inputs.set_blocks(scheduled.slot, new.group, new.first, new.block_ids)

    def _count(
        self,
        verified: Steps[ScheduledSequence],
        token_ids: torch.Tensor,  # [R] int64
        num_accepted: torch.Tensor,  # [S] int64
        first_chosen: list[int],
    ) -> None:
        """Counts the emitted tokens, for the penalties of rows to come."""
        for index, scheduled in enumerate(verified):
            adjustments = self._adjustments[scheduled.slot]
            if adjustments:
                first = first_chosen[index]
                own = token_ids[first : first + len(scheduled.draft_token_ids) + 1]
                adjustments.counts.append(own, num_accepted[index] + 1)

    def _tell(
        self,
        verified: Steps[ScheduledSequence],
        logits: torch.Tensor,  # [R, V]
        token_ids: torch.Tensor,  # [R] int64
        num_accepted: list[int],
        first_chosen: list[int],
    ) -> list[Chosen]:
        ids = token_ids.tolist()
        chosen = []
        for scheduled, accepted, first in zip(verified, num_accepted, first_chosen, strict=True):
            rows = slice(first, first + accepted + 1)
            output = scheduled.sequence.output
            about = (
                _tell_logprobs(logprobs(logits[rows], token_ids[rows], output.top_logprobs)) if output.logprobs else []
            )
            chosen.append(Chosen(ids[rows], accepted, about))
        return chosen

    def _prompt_logprobs(
        self,
        step: Steps[ScheduledSequence],
        hidden: torch.Tensor,  # [T, hidden_size]
    ) -> list[list[TokenLogprob]]:
        """Of the prompt tokens that follow each sequence's rows: row j says how likely token j + 1 was."""
        found: list[list[TokenLogprob]] = []
        first_row = 0
        for scheduled in step:
            sequence, about = scheduled.sequence, []
            if sequence.needs_prompt_rows:
                following = sequence.prompt_token_ids[scheduled.start + 1 : scheduled.start + scheduled.num_rows + 1]
                for first in range(0, len(following), _MAX_LOGIT_ROWS):
                    token_ids = self._tensor(following[first : first + _MAX_LOGIT_ROWS])
                    rows = hidden[first_row + first : first_row + first + len(token_ids)]
                    logits = self._target.compute_logits(rows)
                    about += _tell_logprobs(logprobs(logits, token_ids, sequence.output.top_logprobs))
            found.append(about)
            first_row += scheduled.num_rows
        return found

    def _tensor(self, values: Steps[int] | Steps[list[int]]) -> torch.Tensor:  # [N] or [N, M] int64
        return torch.tensor(values, dtype=torch.int64, device=self._device)


def _offsets(lengths: list[int]) -> list[int]:
    """Where each of several runs begins that stand one after the other."""
    offsets, total = [], 0
    for length in lengths:
        offsets.append(total)
        total += length
    return offsets


def _tell_logprobs(about: Logprobs) -> list[TokenLogprob]:
    rows = zip(about.chosen.tolist(), about.top_token_ids.tolist(), about.top.tolist(), strict=True)
    return [TokenLogprob(chosen, tuple(zip(ids, values, strict=True))) for chosen, ids, values in rows]
