"""Drafting changes how fast text comes, never the text: `sample` and `judge` around a tiny Markov target."""

import itertools
from collections import Counter
from collections.abc import Callable

import pytest
import torch

from tandem.core.sampling_params import SamplingParams, StoppingParams
from tandem.core.sequence import Sequence
from tandem.sampling.judge import judge
from tandem.sampling.penalties import LogitAdjustments
from tandem.sampling.rows import SamplingRows
from tandem.sampling.sampler import sample
from tests.unit.sampling.reference import chi_square_p_value, filtered_distribution

VOCAB_SIZE = 5
NUM_SEQUENCES = 20_000
NUM_COMPARED = 2000
NUM_TOKENS = 3
FIRST_TOKEN = 2
TABLE = torch.randn(VOCAB_SIZE, VOCAB_SIZE, generator=torch.Generator().manual_seed(3)) * 1.5  # logits after a token
NEAR_TABLE = TABLE + 0.3 * torch.randn(VOCAB_SIZE, VOCAB_SIZE, generator=torch.Generator().manual_seed(4))

# (last token [S], rows of the next token, K) -> drafts [S, K]
Drafter = Callable[[torch.Tensor, SamplingRows, int], torch.Tensor]


def honest(last: torch.Tensor, rows: SamplingRows, num_drafts: int, table: torch.Tensor = TABLE) -> torch.Tensor:
    drafts = []
    for step in range(num_drafts):
        last = sample(table[last], rows.at(rows.positions + step))
        drafts.append(last)
    return torch.stack(drafts, dim=1)


def near(last: torch.Tensor, rows: SamplingRows, num_drafts: int) -> torch.Tensor:
    return honest(last, rows, num_drafts, NEAR_TABLE)


def greedy(last: torch.Tensor, rows: SamplingRows, num_drafts: int) -> torch.Tensor:
    drafts = []
    for _ in range(num_drafts):
        last = TABLE[last].argmax(dim=-1)
        drafts.append(last)
    return torch.stack(drafts, dim=1)


def hostile(last: torch.Tensor, rows: SamplingRows, num_drafts: int) -> torch.Tensor:
    """Likely tokens, unlikely ones, and ids that no vocabulary has."""
    generator = torch.Generator().manual_seed(int(rows.positions.sum()))
    menu = torch.tensor([*range(VOCAB_SIZE), -1, VOCAB_SIZE, 2**62])
    return menu[torch.randint(len(menu), (len(last), num_drafts), generator=generator)]


def rows_of(params: SamplingParams, seeds: torch.Tensor) -> SamplingRows:
    """Rows that differ in their seed only."""
    shape = (len(seeds),)
    return SamplingRows.from_tensors(
        temperature=torch.full(shape, params.temperature, dtype=torch.float64),
        top_k=torch.full(shape, params.top_k),
        top_p=torch.full(shape, params.top_p, dtype=torch.float64),
        min_p=torch.full(shape, params.min_p, dtype=torch.float64),
        seeds=seeds,
        positions=torch.ones(shape, dtype=torch.int64),
        is_all_greedy=params.is_greedy,
        max_top_k=params.top_k or None,
    )


def decode(params: SamplingParams, drafter: Drafter, max_drafts: int, num_sequences: int) -> tuple[torch.Tensor, float]:
    """Tokens [S, NUM_TOKENS] of sequences that advance at their own pace, and the share of drafts accepted."""
    seeds = torch.arange(num_sequences)
    rows, verify_rows = rows_of(params, seeds), rows_of(params, seeds.repeat_interleave(max_drafts + 1))
    offsets = torch.arange(max_drafts + 1)
    num_emitted = torch.zeros(num_sequences, dtype=torch.int64)
    text = torch.full((num_sequences, 1 + NUM_TOKENS + max_drafts + 1), FIRST_TOKEN)
    num_drafted = num_accepted = 0
    while num_emitted.min() < NUM_TOKENS:
        last = text.gather(1, num_emitted.unsqueeze(1))
        drafts = torch.empty(num_sequences, 0, dtype=torch.int64)
        if max_drafts:
            drafts = drafter(last.squeeze(1), rows.at(num_emitted + 1), max_drafts)
        num_drafts = (torch.arange(num_sequences) + num_emitted) % (max_drafts + 1)  # some rounds draft fewer
        logits = TABLE[torch.cat((last, drafts.clamp(0, VOCAB_SIZE - 1)), dim=1)]
        positions = num_emitted.unsqueeze(1) + 1 + offsets
        target = sample(logits.flatten(0, 1), verify_rows.at(positions.flatten())).view_as(positions)
        accepted = judge(target, drafts, num_drafts)
        is_running = num_emitted < NUM_TOKENS
        is_emitted = (offsets <= accepted.unsqueeze(1)) & is_running.unsqueeze(1)
        slots = positions.clamp(max=text.shape[1] - 1)
        text.scatter_(1, slots, torch.where(is_emitted, target, text.gather(1, slots)))
        num_emitted += is_emitted.sum(dim=1)
        num_drafted += int(num_drafts[is_running].sum())
        num_accepted += int(accepted[is_running].sum())
    return text[:, 1 : 1 + NUM_TOKENS], num_accepted / max(num_drafted, 1)


def joint_distribution(params: SamplingParams) -> dict[tuple[int, ...], float]:
    step = [filtered_distribution(TABLE[token].tolist(), params) for token in range(VOCAB_SIZE)]
    distribution = {}
    for tokens in itertools.product(range(VOCAB_SIZE), repeat=NUM_TOKENS):
        probability = 1.0
        for previous, token in itertools.pairwise((FIRST_TOKEN, *tokens)):
            probability *= step[previous][token]
        distribution[tokens] = probability
    return distribution


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=0.8, top_k=4, top_p=0.95),
        SamplingParams(temperature=1.5, min_p=0.1),
        SamplingParams(temperature=0.0),
    ],
    ids=["plain", "top-k and top-p", "hot with min-p", "greedy"],
)
def test_same_text_whoever_drafts(params: SamplingParams) -> None:
    """Joint distribution of the first three tokens against enumeration, and equality for every K and drafter.

    One chi-square over 20,000 sequences a setting: false alarm with probability 1e-6, were the seeds not fixed. Every
    other run must give the very same tokens, so that none needs a chi-square of its own.
    """
    plain, _ = decode(params, honest, 0, NUM_SEQUENCES)
    counts = Counter(tuple(tokens) for tokens in plain.tolist())
    assert chi_square_p_value(counts, joint_distribution(params)) > 1e-6
    acceptance = {}
    for drafter, max_drafts in itertools.product((honest, near, greedy, hostile), (1, 3)):
        tokens, acceptance[drafter, max_drafts] = decode(params, drafter, max_drafts, NUM_COMPARED)
        assert tokens.equal(plain[:NUM_COMPARED]), f"{drafter.__name__}, K = {max_drafts}"
    assert acceptance[honest, 1] == acceptance[honest, 3] == 1.0, "the target's own choice is always accepted"
    if not params.is_greedy:
        assert acceptance[near, 3] > acceptance[greedy, 3] > acceptance[hostile, 3] > 0.0


@pytest.mark.parametrize("max_drafts", [1, 3, 6])
@pytest.mark.parametrize("seed", range(8))
def test_same_text_under_penalties(max_drafts: int, seed: int) -> None:
    """A row's penalties count the drafts before it: the text must equal that of one token a round."""
    params = SamplingParams(
        temperature=0.9, top_k=4, seed=seed, repetition_penalty=1.2, presence_penalty=0.3, frequency_penalty=0.5
    )
    assert penalized_text(params, hostile, max_drafts) == penalized_text(params, hostile, 0)
    assert penalized_text(params, near, max_drafts) == penalized_text(params, near, 0)


def penalized_text(params: SamplingParams, drafter: Drafter, max_drafts: int) -> list[int]:
    stopping = StoppingParams(max_tokens=24, min_tokens=10, stop_token_ids=frozenset({0}))
    sequence = Sequence(0, (FIRST_TOKEN, 1), params, stopping)
    adjustments = LogitAdjustments.for_sequence(sequence, VOCAB_SIZE)
    assert adjustments is not None
    while sequence.finish_reason is None:
        position = len(sequence.committed)
        rows = SamplingRows.from_params([(params, position + row) for row in range(max_drafts + 1)])
        last = torch.tensor([sequence.committed[-1]])
        drafts = torch.empty(1, 0, dtype=torch.int64)
        if max_drafts:
            drafts = drafter(last, SamplingRows.from_params([(params, position)]), max_drafts)
        logits = TABLE[torch.cat((last, drafts[0].clamp(0, VOCAB_SIZE - 1)))]
        target = sample(adjustments.apply(logits, drafts[0]), rows)
        num_tokens = judge(target.unsqueeze(0), drafts, torch.tensor([max_drafts]))[0] + 1
        adjustments.counts.append(target, num_tokens)
        sequence.commit(target[: int(num_tokens)].tolist())
    return sequence.committed
