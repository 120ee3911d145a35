"""One request's tokens and how far they have come."""

import enum
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field

from tandem.core.sampling_params import OutputParams, SamplingParams, StoppingParams
from tandem.core.token_grammar import TokenGrammar


class FinishReason(enum.Enum):
    """Why a sequence ended."""

    STOP = "stop"  # a stop token, a grammar's end, or in the gateway a stop string
    LENGTH = "length"  # max_tokens or the context length
    CANCELLED = "cancelled"  # the caller went away
    DEADLINE = "deadline"  # the caller's deadline passed
    FAULT = "fault"  # a defect of ours


@dataclass
class SpeculationStats:
    """What drafting did for one sequence; `accepted_by_position[i]` counts rounds whose draft i was accepted."""

    num_rounds: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    accepted_by_position: list[int] = field(default_factory=list)

    def record(self, num_drafts: int, num_accepted: int) -> None:
        """Counts one verify round."""
        assert 0 <= num_accepted <= num_drafts
        self.num_rounds += 1
        self.num_draft_tokens += num_drafts
        self.num_accepted_tokens += num_accepted
        self.accepted_by_position.extend([0] * (num_drafts - len(self.accepted_by_position)))
        for position in range(num_accepted):
            self.accepted_by_position[position] += 1


@dataclass
class Sequence:
    """Prompt and output tokens of one request.

    `committed` tokens are never taken back. The first `num_computed_tokens` of them have KV in the cache; a decoding
    sequence has computed all but the last.
    """

    sequence_id: int
    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams
    stopping: StoppingParams
    output: OutputParams = field(default_factory=OutputParams)
    num_speculative_tokens: int = 0  # drafts wanted a round, at most the server's K
    deadline: float | None = None  # on the monotonic clock, seconds
    cache_salt: str = ""  # shares KV only with sequences of the same salt
    grammar: TokenGrammar | None = None  # has accepted the output tokens so far

    traceparent: str = ""  # of the request's span, for those who do a part of its work; empty: nobody records it

    committed: list[int] = field(init=False)
    entered_at: float | None = field(init=False, default=None)  # first got a slot; on the monotonic clock, seconds
    num_computed_tokens: int = field(init=False, default=0)
    num_cached_tokens: int | None = field(init=False, default=None)  # found in the prefix cache; None: not begun yet
    block_digests: list[bytes] = field(init=False, default_factory=list)  # the prefix cache's names for full KV blocks
    stats: SpeculationStats = field(init=False, default_factory=SpeculationStats)
    finish_reason: FinishReason | None = field(init=False, default=None)
    stop_token_id: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Starts with the prompt committed and nothing computed."""
        assert self.prompt_token_ids, "the engine is given at least one prompt token"
        self.committed = list(self.prompt_token_ids)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.prompt_token_ids)

    @property
    def num_output_tokens(self) -> int:
        """Tokens generated so far."""
        return len(self.committed) - self.num_prompt_tokens

    @property
    def num_uncomputed_tokens(self) -> int:
        """Committed tokens without KV: many while prefilling, one while decoding."""
        return len(self.committed) - self.num_computed_tokens

    @property
    def is_decoding(self) -> bool:
        """Whether only the last committed token awaits its forward pass, and it was generated."""
        return self.num_uncomputed_tokens == 1 and self.num_output_tokens > 0

    @property
    def needs_prompt_rows(self) -> bool:
        """Whether every prompt token must be computed, since it is still to be said how likely each was."""
        return self.output.prompt_logprobs and self.num_output_tokens == 0

    @property
    def num_tokens_left(self) -> int:
        """Output tokens still allowed."""
        return self.stopping.max_tokens - self.num_output_tokens

    def commit(self, token_ids: list[int]) -> list[int]:
        """Appends verified tokens up to the first that ends the sequence; returns those kept.

        A draft may run past the end: what follows a stop token or the end of the grammar, or exceeds `max_tokens`, was
        never asked for. A token that the grammar forbids, though no such one should be chosen, ends the sequence as a
        fault.
        """
        kept: list[int] = []
        for token_id in token_ids:
            is_stop = token_id in self.stopping.stop_token_ids and self.num_output_tokens >= self.stopping.min_tokens
            if self.grammar and not is_stop and not self.grammar.accept(token_id):
                self.finish_reason = FinishReason.FAULT
                break
            kept.append(token_id)
            self.committed.append(token_id)
            if is_stop:
                self.finish_reason, self.stop_token_id = FinishReason.STOP, token_id
            elif self.grammar and self.grammar.is_complete:
                self.finish_reason = FinishReason.STOP
            elif self.num_tokens_left == 0:
                self.finish_reason = FinishReason.LENGTH
            if self.finish_reason:
                break
        return kept

    def possible_drafts(self, draft_token_ids: Tokens[int]) -> Tokens[int]:
        """The drafts up to the first that its grammar forbids."""
        return draft_token_ids[: self.grammar.num_possible(draft_token_ids)] if self.grammar else draft_token_ids

    def restart(self) -> None:
        """Forgets all KV after a preemption; the committed tokens will be computed again."""
        self.num_computed_tokens = 0
