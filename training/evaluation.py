"""Acceptance length of the pair on held-out prompts.

What is emitted does not depend on the drafter, so the target writes first; then the drafter drafts at every position at
once, and the rounds are walked over both.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from training import generation
from training.network import Drafter, Target, build_masks
from training.tokenizer import END_OF_TURN, EOS


@dataclass(frozen=True)
class Acceptance:
    """Acceptance lengths (tokens a round: accepted drafts plus one) over prompts, and the drafts' fate by place."""

    lengths: list[float]  # mean of each prompt
    by_place: list[float]  # share of rounds whose draft 1, 2, ... was accepted

    @property
    def mean(self) -> float:
        """Mean over prompts."""
        return sum(self.lengths) / len(self.lengths)

    @property
    def median(self) -> float:
        """Median over prompts."""
        return sorted(self.lengths)[len(self.lengths) // 2]

    def line(self) -> str:
        """One line for a log."""
        places = " ".join(f"{share:.3f}" for share in self.by_place)
        return f"mean {self.mean:.3f} median {self.median:.3f} min {min(self.lengths):.3f} by place {places}"


@dataclass(frozen=True)
class Continuations:
    """What the target wrote: tokens [B, T], of which a row's text runs from `starts` for `emitted` tokens."""

    tokens: Tensor
    starts: list[int]
    emitted: int


@torch.no_grad()
def continue_prompts(
    target: Target, prompts: list[list[int]], emitted: int, sampling: generation.Gumbel | None
) -> Continuations:
    """Let the target continue each prompt (token ids) by `emitted` tokens: greedy, or with `sampling`."""
    device = target.model.embed_tokens.weight.device
    longest = max(map(len, prompts))
    tokens = torch.zeros(len(prompts), longest + emitted, dtype=torch.long, device=device)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = torch.tensor(prompt)
    starts = [len(prompt) for prompt in prompts]
    choose = generation.greedy if sampling is None else sampling
    written = generation.write(target, tokens, torch.tensor(starts, device=device), choose, torch.float32)
    return Continuations(written, starts, emitted)


@torch.no_grad()
def measure(
    target: Target, drafter: Drafter, texts: Continuations, drafts: int, sampling: generation.Gumbel | None
) -> Acceptance:
    """Acceptance of `drafts` drafts a round over `texts`, which were written with the same `sampling`."""
    tokens = texts.tokens
    proposed = _draft_everywhere(target, drafter, tokens, drafts, sampling).tolist()  # [B, T, drafts]
    lengths: list[float] = []
    fates = [0] * drafts
    rounds_in_all = 0
    for row, start in enumerate(texts.starts):
        text = tokens[row].tolist()
        end = start + texts.emitted
        for position in range(start, end):
            if text[position] in (EOS, END_OF_TURN):
                end = position + 1
                break
        rounds, last = 0, start  # `last` is the newest emitted token: the prefill emitted the first
        while last < end - 1:
            accepted = 0
            while accepted < drafts and last + 1 + accepted < end:
                if proposed[row][last - 1][accepted] != text[last + 1 + accepted]:
                    break
                fates[accepted] += 1
                accepted += 1
            rounds += 1
            last += accepted + 1
        rounds_in_all += rounds
        if rounds:
            lengths.append((min(last, end - 1) - start) / rounds)
    return Acceptance(lengths, [fate / rounds_in_all for fate in fates])


def _draft_everywhere(
    target: Target, drafter: Drafter, tokens: Tensor, drafts: int, sampling: generation.Gumbel | None
) -> Tensor:
    """Drafts [B, T, drafts]: entry i of a row follows tokens 0..i + 1, drafted from its own choices."""
    length, device = tokens.shape[1], tokens.device
    rows, kvs = target(tokens, build_masks(length, target.shape.window, device, blocks=False), torch.float32)
    masks = build_masks(length, target.shape.window - 1, device, blocks=False)
    fed = tokens.roll(-1, dims=1)
    chosen = []
    for step in range(drafts):
        normed, rows = drafter(target.embed(fed, torch.float32), rows, target.shared(kvs), masks)
        scores = drafter.logits(normed)
        if sampling is None:
            fed = scores.argmax(-1)
        else:
            columns = [sampling.choose(scores[:, i], sampling.noise(scores[:, i], i + 2 + step)) for i in range(length)]
            fed = torch.stack(columns, dim=1)
        chosen.append(fed)
    return torch.stack(chosen, dim=-1)
