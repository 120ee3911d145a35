"""MtpDrafter: its rounds against a loop over the network alone, and inputs that make no sense."""

from math import nan

import pytest
import torch

from tandem.core.sampling_params import SamplingParams
from tandem.engine.draft_source import DrafterInfo
from tandem.engine.in_process_drafter import InProcessDrafter
from tandem.engine.mtp_drafter import MtpDrafter
from tandem.exchange.draft_inputs import DraftInputs
from tandem.sampling import sampler
from tandem.sampling.rows import SamplingRows
from tests.checkpoints import FULL, SLIDING, make_tiny_pair
from tests.engines import wanted
from tests.unit.engine.drafting import GREEDY, Decoding
from tests.unit.models.paged import BLOCK_SIZE

LENGTHS = {"a": 5, "b": 43, "c": 18, "d": 1}
SAMPLED = SamplingParams(temperature=0.9, top_k=20, top_p=0.95, seed=11)
WIDE = SamplingParams(temperature=1.3, min_p=0.01, seed=12)
K = 6


@pytest.fixture(scope="module")
def decoding(tmp_path_factory: pytest.TempPathFactory) -> Decoding:
    return Decoding(make_tiny_pair(tmp_path_factory.mktemp("pair")), LENGTHS)


def draft_alone(decoding: Decoding, name: str, params: SamplingParams, num_tokens: int = K) -> list[int]:
    """A round of one sequence, straight from the network."""
    network, runner = decoding.network, decoding.runner
    metadata = network.backend.prepare(runner.drafter_batch([name]), network.kv_groups, BLOCK_SIZE)
    token_id, hidden, chosen = decoding.last[name], decoding.hidden[name][None], []
    inputs = network.inputs_of(metadata)
    for position in range(LENGTHS[name] + 1, LENGTHS[name] + 1 + num_tokens):
        scores, hidden = network.forward(torch.tensor([token_id]), hidden, inputs, runner.drafter_kv)
        token_id = int(sampler.sample(scores.logits, SamplingRows.from_params([(params, position)]), scores.token_ids))
        chosen.append(token_id)
    return chosen


@pytest.mark.parametrize("params", [GREEDY, SAMPLED, WIDE], ids=["greedy", "top-k", "whole vocabulary"])
@pytest.mark.parametrize("name", LENGTHS)
def test_a_round_is_a_loop_over_the_network(decoding: Decoding, name: str, params: SamplingParams) -> None:
    inputs = decoding.inputs()
    decoding.write(inputs, 3, name, params)
    expected = draft_alone(decoding, name, params)
    assert len(set(expected)) > 1, "a pair that repeats itself would prove little"
    assert MtpDrafter(decoding.network, inputs).propose([3], K) == [expected]


def test_a_batch_is_each_alone(decoding: Decoding) -> None:
    inputs = decoding.inputs()
    wanted = {5: ("a", SAMPLED), 0: ("b", GREEDY), 7: ("c", WIDE), 2: ("d", SAMPLED)}
    for slot, (name, params) in wanted.items():
        decoding.write(inputs, slot, name, params)
    drafter = MtpDrafter(decoding.network, inputs)
    assert drafter.propose(list(wanted), K) == [draft_alone(decoding, *one) for one in wanted.values()]
    assert drafter.propose([7, 0], 2) == [draft_alone(decoding, *wanted[slot], 2) for slot in (7, 0)]


@pytest.mark.parametrize("params", [GREEDY, SAMPLED, WIDE], ids=["greedy", "top-k", "whole vocabulary"])
def test_suppressed_tokens_are_never_drafted(decoding: Decoding, params: SamplingParams) -> None:
    inputs = decoding.inputs()
    decoding.write(inputs, 3, "b", params)
    suppressed = draft_alone(decoding, "b", params)[:2]
    (drafts,) = MtpDrafter(decoding.network, inputs, suppress_token_ids=(*suppressed, 10**6)).propose([3], K)
    assert len(drafts) == K and not set(drafts) & set(suppressed)


def test_the_noise_is_that_of_the_places_drafted_for(decoding: Decoding, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last token stands at P, so that the drafts are chosen for P+1, P+2, ..."""
    positions = []

    def record(logits: torch.Tensor, rows: SamplingRows, token_ids: torch.Tensor | None) -> torch.Tensor:
        positions.append(rows.positions.tolist())
        return sampler.sample(logits, rows, token_ids)

    monkeypatch.setattr("tandem.engine.mtp_drafter.sample", record)
    inputs = decoding.inputs()
    decoding.write(inputs, 0, "a", SAMPLED)
    decoding.write(inputs, 1, "b", SAMPLED)
    MtpDrafter(decoding.network, inputs).propose([0, 1], 3)
    assert positions == [[6, 44], [7, 45], [8, 46]]


@pytest.mark.parametrize(
    ("params", "is_all_greedy", "max_top_k"),
    [
        ([GREEDY, GREEDY], True, None),
        ([GREEDY, SAMPLED], False, 20),
        ([SAMPLED, SamplingParams(temperature=2.0, top_k=5)], False, 20),
        ([SAMPLED, WIDE], False, None),
        ([SamplingParams(temperature=0.0, top_k=0), SAMPLED], False, 20),
    ],
)
def test_the_whole_vocabulary_is_searched_only_when_it_must(
    decoding: Decoding,
    monkeypatch: pytest.MonkeyPatch,
    params: list[SamplingParams],
    is_all_greedy: bool,
    max_top_k: int | None,
) -> None:
    seen = []

    def record(logits: torch.Tensor, rows: SamplingRows, token_ids: torch.Tensor | None) -> torch.Tensor:
        seen.append(rows)
        return sampler.sample(logits, rows, token_ids)

    monkeypatch.setattr("tandem.engine.mtp_drafter.sample", record)
    inputs = decoding.inputs()
    for slot, (name, one) in enumerate(zip("ab", params, strict=True)):
        decoding.write(inputs, slot, name, one)
    MtpDrafter(decoding.network, inputs).propose([0, 1], 1)
    assert [rows.is_all_greedy for rows in seen] == [is_all_greedy]
    assert is_all_greedy or seen[0].max_top_k == max_top_k


def spoil(inputs: DraftInputs, what: str) -> None:
    """Makes slot 1 unusable."""
    match what:
        case "token below 0":
            inputs.token_ids[1] = -1
        case "token beyond the vocabulary":
            inputs.token_ids[1] = 64
        case "nothing before it":
            inputs.positions[1] = 0
        case "position below 0":
            inputs.positions[1] = -(2**62)
        case "position beyond the tables":
            inputs.positions[1] = inputs.spec.max_blocks * BLOCK_SIZE + 1
        case "huge position":
            inputs.positions[1] = 2**62
        case "block released":
            inputs.block_tables[FULL][1, 0] = -1
        case "block beyond the cache":
            inputs.block_tables[FULL][1, 1] = 200
        case "sliding block missing":
            inputs.block_tables[SLIDING][1, (LENGTHS["c"] - 1) // BLOCK_SIZE] = -1
        case "more tokens than blocks":
            inputs.positions[1] = inputs.spec.max_blocks * BLOCK_SIZE


@pytest.mark.parametrize(
    "what",
    [
        "token below 0",
        "token beyond the vocabulary",
        "nothing before it",
        "position below 0",
        "position beyond the tables",
        "huge position",
        "block released",
        "block beyond the cache",
        "sliding block missing",
        "more tokens than blocks",
    ],
)
def test_a_slot_that_makes_no_sense_gets_no_drafts_and_the_others_theirs(decoding: Decoding, what: str) -> None:
    inputs = decoding.inputs()
    for slot, name in enumerate("bca"):
        decoding.write(inputs, slot, name, SAMPLED)
    drafter = MtpDrafter(decoding.network, inputs)
    sane = drafter.propose([0, 1, 2], K)
    assert [len(token_ids) for token_ids in sane] == [K] * 3
    spoil(inputs, what)
    assert drafter.propose([0, 1, 2], K) == [sane[0], [], sane[2]]
    assert drafter.propose([1], K) == [[]]


def test_slots_that_are_not_there_get_no_drafts(decoding: Decoding) -> None:
    inputs = decoding.inputs()
    decoding.write(inputs, 0, "a")
    drafter = MtpDrafter(decoding.network, inputs)
    assert drafter.propose([8, 0, -1, 2**31], K) == [[], draft_alone(decoding, "a", GREEDY), [], []]
    assert drafter.propose([], K) == []
    assert drafter.propose([0], 0) == [[]]


def test_keys_out_of_the_window_need_no_block(decoding: Decoding) -> None:
    inputs = decoding.inputs()
    decoding.write(inputs, 0, "b")
    first_visible, offset = divmod(LENGTHS["b"] - 8 + 1, BLOCK_SIZE)
    assert offset == 0, "the key before the first visible one is in another block"
    inputs.block_tables[SLIDING][0, :first_visible] = 10_000
    assert MtpDrafter(decoding.network, inputs).propose([0], K) == [draft_alone(decoding, "b", GREEDY)]


@pytest.mark.parametrize("temperature", [nan, -1.0, 1e-300])
@pytest.mark.parametrize("hidden", [0.0, nan])
def test_nonsense_among_the_numbers_does_no_harm(decoding: Decoding, temperature: float, hidden: float) -> None:
    inputs = decoding.inputs()
    decoding.write(inputs, 0, "a", SAMPLED)
    inputs.temperature[0] = temperature
    inputs.top_p[0] = nan
    inputs.seeds[0] = -5
    inputs.hidden[0] += hidden
    [token_ids] = MtpDrafter(decoding.network, inputs).propose([0], K)
    assert len(token_ids) == K and all(0 <= token_id < 64 for token_id in token_ids)


def test_in_process_drafts_are_computed_when_collected(decoding: Decoding) -> None:
    inputs = decoding.inputs()
    source = InProcessDrafter(MtpDrafter(decoding.network, inputs), DrafterInfo("tiny", 4, "abc"))
    assert source.begin(wanted([2], 7))
    decoding.write(inputs, 2, "c", SAMPLED)
    drafts = source.collect()
    assert drafts.token_ids == [draft_alone(decoding, "c", SAMPLED, 4)] and drafts.fallback is None
