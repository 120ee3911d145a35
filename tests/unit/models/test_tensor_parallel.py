"""A target shared by two and by four processes against the whole one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tandem.core.errors import ConfigError, EngineFault
from tandem.engine.device_drafter import DeviceDrafter
from tandem.engine.draft_source import DrafterInfo
from tandem.engine.in_process_ahead import InProcessAhead
from tandem.exchange.draft_inputs import DraftInputs
from tandem.models.gemma4.config import read_target_config
from tandem.models.gemma4.fp8_linear import Fp8Linear, ScaledRows
from tandem.models.gemma4.linear import Linear
from tandem.models.gemma4.parameters import Destination
from tandem.models.gemma4.shares import check_shares
from tandem.models.gemma4.target import Gemma4Target
from tandem.models.gemma4.weights import load_drafter, load_target
from tandem.models.ranks import LEADER, ProcessRanks, Ranks
from tests.checkpoints import VARIANTS, make_tiny_pair
from tests.engines import mtp_drafts, new_sequence, running
from tests.unit.attention.device_planned import DevicePlanned
from tests.unit.models.leader import Leader
from tests.unit.models.paged import BLOCK_SIZE, PagedRunner

TOLERANCE = 1e-4  # of logits, which are a few units wide
TARGETS: dict[str, dict[str, Any]] = {
    "31b": VARIANTS["31b"],
    "26b-a4b": {**VARIANTS["26b-a4b"], "moe_intermediate_size": 32},
    "e4b": {**VARIANTS["e4b"], "use_double_wide_mlp": True},
}
STEPS = [{"a": 21}, {"a": 1, "b": 30}, {"a": 5, "b": 5, "c": 2}, {"c": 1}, {"a": 5, "b": 5, "c": 5}, {"a": 1, "b": 1}]
SIZES = (2, 4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp(name) for name in TARGETS}
    for name, folder in made.items():
        make_tiny_pair(folder, **TARGETS[name])
    return made


@pytest.mark.parametrize("size", SIZES)
def test_ranks_compute_what_one_process_does(size: int, folders: dict[str, Path]) -> None:
    leader = Leader(size, "cpu", list(folders.values()))
    try:
        for name, folder in folders.items():
            alone = load_target(folder / "target", torch.float32, "cpu")
            with leader.target(folder) as shared:
                for ours, whole in zip(ragged_logits(shared), ragged_logits(alone), strict=True):
                    torch.testing.assert_close(ours, whole, atol=TOLERANCE, rtol=0.0, msg=lambda m, n=name: f"{n}: {m}")
                expected = texts(alone, lambda inputs: [], k=0)
                assert len({tuple(text) for text in expected}) == len(expected)
                assert texts(shared, mtp_drafts(shared, folder / "drafter"), k=4) == expected, name
                # Rounds that run ahead of the host.
                assert texts(shared, lambda inputs: [], k=0) == expected, name
                assert texts(shared, drafts_ahead(shared, folder / "drafter"), k=4) == expected, name
        assert leader.num_rounds_ahead > 0
        leader.close()
    finally:
        leader.kill()


def ragged_logits(target: Gemma4Target) -> list[torch.Tensor]:
    """Of prefill, decode and verify rows side by side, across the sliding window."""
    generator = torch.Generator().manual_seed(0)
    runner, logits = PagedRunner(target), []
    for lens in STEPS:
        tokens = {name: torch.randint(0, 64, (n,), generator=generator).tolist() for name, n in lens.items()}
        logits += [target.compute_logits(hidden) for hidden in runner.step(tokens).values()]
    return logits


def drafts_ahead(target: Gemma4Target, path: Path) -> Callable[[DraftInputs], InProcessAhead]:
    """Makes the `AheadSource` of a real drafter in this process."""

    def make(inputs: DraftInputs) -> InProcessAhead:
        network = load_drafter(path, target.config, torch.float32, "cpu", inputs.embedding)
        network.backend = DevicePlanned(network.config.text.num_attention_heads)
        shape = (inputs.spec.num_slots, inputs.spec.max_draft_tokens)
        drafter = DeviceDrafter(network, inputs, torch.zeros(shape, dtype=torch.int64))
        return InProcessAhead(drafter, DrafterInfo("mtp", 4, "test"))

    return make


def texts(target: Gemma4Target, drafts_of: Callable[[DraftInputs], Any], k: int) -> list[list[int]]:
    """What three prompts, two of them longer than the window, are continued with."""
    sequences = [new_sequence(n, range(2 + n, 2 + n + 11 * (n + 1) - 8), max_tokens=8, k=k) for n in range(3)]
    with running(target, drafts_of, block_size=BLOCK_SIZE, max_context=128) as under_test:
        return under_test.generate(sequences)


def test_each_rank_holds_half_and_the_leader_what_a_drafter_reads(folders: dict[str, Path]) -> None:
    config = read_target_config(folders["31b"] / "target")
    whole = Gemma4Target(config, device="meta")
    numbers = [
        sum(view.numel() for name, one in target.destinations() if "proj" in name for view in one.views)
        for target in (whole, *(Gemma4Target(config, device="meta", ranks=Ranks(rank, 2)) for rank in range(2)))
    ]
    sliding, full = (config.attention[group.name] for group in config.kv_groups)
    extra = 32 * (sliding.head_dim * 2)  # the leader's other head of keys and values
    shared_heads = 2 * 32 * full.head_dim  # the one KV head of both full layers, which both ranks have
    assert numbers[1] - numbers[2] == extra
    assert numbers[1] + numbers[2] == numbers[0] + extra + shared_heads


@pytest.mark.parametrize("linear", [Linear, Fp8Linear])
def test_parts_are_those_of_the_whole_tensors(linear: type[Linear], folders: dict[str, Path]) -> None:
    """In 8 bits too: who keeps which part does not change how it is rounded."""
    path = folders["26b-a4b"] / "target"
    whole = dict(load_target(path, torch.float32, "cpu", linear=linear).destinations())
    for rank in range(2):
        share = load_target(path, torch.float32, "cpu", linear=linear, ranks=Ranks(rank, 2))
        parts = {name: one for name, one in share.destinations() if one.part}
        assert len(parts) >= 6 * 7  # of six layers: q, o, gate, up, down, and two of experts
        for name, one in parts.items():
            assert one.part and one.num_wanted == one.views[0].numel()
            places = torch.cat([torch.tensor(list(run)) for run in one.part.places])
            assert torch.equal(weights(one), weights(whole[name]).index_select(one.part.dim, places)), name


def weights(destination: Destination) -> torch.Tensor:
    view = destination.views[0].float()
    return view * destination.scales.unsqueeze(-1) if isinstance(destination, ScaledRows) else view


@pytest.mark.parametrize(
    ("size", "overrides", "reason"),
    [
        (3, {}, "4 query heads and 2 KV heads"),
        (2, {"intermediate_size": 47}, "47 columns"),
        (2, TARGETS["26b-a4b"] | {"moe_intermediate_size": 24}, "24 columns"),
    ],
)
def test_a_target_that_cannot_be_shared_is_refused(
    size: int, overrides: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    config = read_target_config(make_tiny_pair(tmp_path, **overrides)[0])
    with pytest.raises(ConfigError, match=f"--tensor-parallel {size}: .*{reason}"):
        check_shares(config, size)


def test_a_step_that_failed_is_the_last_one() -> None:
    ranks = ProcessRanks(LEADER, 2)
    ranks.begin()
    with pytest.raises(EngineFault, match="failed"):
        ranks.begin()
