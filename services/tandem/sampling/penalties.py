"""What a request does to its logits before the filters: penalties, then bias, then the masks.

Two kinds of tokens are masked: stop tokens before min_tokens, and what the checkpoint suppresses altogether.
"""

from collections.abc import Sequence as Tokens
from dataclasses import dataclass

import torch

from tandem.core.errors import InvalidRequest
from tandem.core.sampling_params import SamplingParams
from tandem.core.sequence import Sequence


class TokenCounts:
    """How often each token occurs in one sequence; kept up to date, never rebuilt from the history.

    Lives on the device, so that a round's tokens are counted before the host has seen them.
    """

    in_prompt: torch.Tensor  # [V] bool
    output: torch.Tensor  # [V] int32, sums up to num_output
    num_output: torch.Tensor  # [] int64

    def __init__(
        self,
        prompt_token_ids: Tokens[int],
        output_token_ids: Tokens[int],
        vocab_size: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Counts what the sequence holds so far."""
        self.in_prompt = torch.zeros(vocab_size, dtype=torch.bool, device=device)
        self.in_prompt[torch.tensor(prompt_token_ids, dtype=torch.int64, device=device)] = True
        self.output = torch.zeros(vocab_size, dtype=torch.int32, device=device)
        self.num_output = torch.zeros((), dtype=torch.int64, device=device)
        self.append(torch.tensor(output_token_ids, dtype=torch.int64, device=device), len(output_token_ids))

    def append(
        self,
        token_ids: torch.Tensor,  # [N] int64, target tokens
        num_tokens: torch.Tensor | int,  # [] integer: only so many of them were emitted
    ) -> None:
        """Counts the tokens that a round emitted."""
        is_emitted = torch.arange(token_ids.shape[0], device=token_ids.device) < num_tokens
        self.output.index_add_(0, token_ids, is_emitted.int())
        self.num_output += is_emitted.sum()

    def of_drafts(self, draft_token_ids: torch.Tensor) -> torch.Tensor:  # [N - 1] int64 -> [N, N - 1] int64
        """How often each draft's token occurs in the output before each row of a verify.

        Row j follows the drafts d1..dj, so it counts them too: it matters only if they were accepted.
        """
        num_drafts = draft_token_ids.shape[0]
        is_same = draft_token_ids.unsqueeze(-1) == draft_token_ids
        occurrences = torch.cat((is_same.new_zeros(1, num_drafts), is_same)).cumsum(dim=0)
        return occurrences + self.output[draft_token_ids]

    def check_integrity(self) -> None:
        """Raises AssertionError if the counts contradict each other; waits for the device."""
        assert int(self.output.min()) >= 0
        assert int(self.output.sum()) == int(self.num_output)


def penalize(
    logits: torch.Tensor,  # [N, M] float32, of M tokens
    counts: torch.Tensor,  # [M] or [N, M] integer, occurrences in the output before the row
    in_prompt: torch.Tensor,  # [M] bool
    params: SamplingParams,
) -> torch.Tensor:  # [N, M] float32
    """Repetition penalty over prompt and output, then presence and frequency penalties over the output.

    Repetition (Keskar et al., "CTRL", 2019) divides positive logits and multiplies negative ones; the other two
    are subtracted, once and once per occurrence.
    """
    in_output = counts > 0
    factors = torch.where(in_output | in_prompt, params.repetition_penalty, 1.0)
    # Whatever the sign, a factor above 1 asks for the smaller of both and a factor below 1 for the greater one.
    choose = torch.minimum if params.repetition_penalty >= 1.0 else torch.maximum
    penalized = choose(logits / factors, logits * factors)
    return penalized - (params.presence_penalty * in_output + params.frequency_penalty * counts)


@dataclass(frozen=True)
class LogitAdjustments:
    """Everything that one request does to its logits before the filters; made by `for_sequence`."""

    params: SamplingParams
    counts: TokenCounts
    bias_token_ids: torch.Tensor  # [B] int64
    biases: torch.Tensor  # [B] float32
    min_tokens: int
    stop_token_ids: torch.Tensor  # [T] int64
    suppressed_token_ids: torch.Tensor  # [S] int64

    @staticmethod
    def for_sequence(
        sequence: Sequence, vocab_size: int, device: torch.device | str = "cpu"
    ) -> "LogitAdjustments | None":
        """The adjustments that a sequence asks for, its committed tokens counted; None if it asks for none.

        Raises:
            InvalidRequest: a bias for a token outside the vocabulary.
        """
        params, stopping = sequence.sampling, sequence.stopping
        if not (params.has_penalties or params.logit_bias or stopping.min_tokens or params.suppress_token_ids):
            return None
        if any(token_id >= vocab_size for token_id, _ in params.logit_bias):
            raise InvalidRequest("spec.sampling.logit_bias", f"token ids must be below {vocab_size}")
        output_token_ids = sequence.committed[sequence.num_prompt_tokens :]
        stop_token_ids = sorted(token_id for token_id in stopping.stop_token_ids if 0 <= token_id < vocab_size)
        suppressed = [token_id for token_id in params.suppress_token_ids if token_id < vocab_size]
        return LogitAdjustments(
            params=params,
            counts=TokenCounts(sequence.prompt_token_ids, output_token_ids, vocab_size, device),
            bias_token_ids=torch.tensor([token for token, _ in params.logit_bias], dtype=torch.int64, device=device),
            biases=torch.tensor([bias for _, bias in params.logit_bias], dtype=torch.float32, device=device),
            min_tokens=stopping.min_tokens,
            stop_token_ids=torch.tensor(stop_token_ids, dtype=torch.int64, device=device),
            suppressed_token_ids=torch.tensor(suppressed, dtype=torch.int64, device=device),
        )

    def apply(
        self,
        logits: torch.Tensor,  # [N, V] float32, the rows of one sequence in a verify: after t, d1, .., d(N-1)
        draft_token_ids: torch.Tensor,  # [N - 1] int64
    ) -> torch.Tensor:  # [N, V] float32
        """The rows' logits as the filters shall see them; the argument is left as it is, for logprobs."""
        num_rows = logits.shape[0]
        assert draft_token_ids.shape == (num_rows - 1,)
        if self.params.has_penalties:
            adjusted = self._penalize_rows(logits, draft_token_ids)
        else:
            adjusted = logits.clone()
        if self.params.logit_bias:
            adjusted.index_add_(1, self.bias_token_ids, self.biases.expand(num_rows, -1))
        if self.min_tokens:
            num_generated = self.counts.num_output + torch.arange(num_rows, device=logits.device)
            is_too_early = (num_generated < self.min_tokens).unsqueeze(-1)
            stop_logits = adjusted[:, self.stop_token_ids].masked_fill(is_too_early, -torch.inf)
            adjusted.index_copy_(1, self.stop_token_ids, stop_logits)
        return adjusted.index_fill_(1, self.suppressed_token_ids, -torch.inf)

    def _penalize_rows(self, logits: torch.Tensor, draft_token_ids: torch.Tensor) -> torch.Tensor:
        """As if no row had drafts before it, then the few tokens again that are drafts.

        Ids outside the vocabulary are moved inside: no such draft is accepted, and what follows it is thrown away.
        """
        counts = self.counts
        token_ids = draft_token_ids.clamp(0, logits.shape[1] - 1)
        in_rows = token_ids.expand(logits.shape[0], -1)
        again = penalize(
            logits.gather(1, in_rows), counts.of_drafts(token_ids), counts.in_prompt[token_ids], self.params
        )
        return penalize(logits, counts.output, counts.in_prompt, self.params).scatter_(1, in_rows, again)
