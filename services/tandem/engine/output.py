"""What the engine says about a sequence, a message a round."""

from dataclasses import dataclass

from tandem.core.sequence import FinishReason, SpeculationStats
from tandem.engine.step import TokenLogprob


@dataclass(frozen=True)
class SequenceEnd:
    """How a sequence ended."""

    reason: FinishReason
    stop_token_id: int | None
    stats: SpeculationStats


@dataclass(frozen=True)
class SequenceOutput:
    """The tokens of one round, or the end, or both."""

    sequence_id: int
    token_ids: list[int]
    num_accepted_tokens: int = 0  # of them, from the first on, were drafted
    num_draft_tokens: int | None = None  # judged in the round; None: no verify round made these tokens
    logprobs: tuple[TokenLogprob, ...] = ()  # one a token when asked for
    prompt_logprobs: tuple[TokenLogprob, ...] = ()  # with the first tokens, when asked for
    end: SequenceEnd | None = None
