"""Puts an engine together from a target and its limits."""

from collections.abc import Callable, Mapping, Sequence

import torch

from tandem.attention.base import DevicePlanner
from tandem.engine.adaptive_drafts import AdaptiveDrafts
from tandem.engine.ahead_source import AheadSource
from tandem.engine.draft_policy import DraftPolicy, FixedDrafts
from tandem.engine.draft_source import DraftSource
from tandem.engine.engine import Engine, Publish
from tandem.engine.limits import EngineLimits
from tandem.engine.measured_drafts import MeasuredDrafts
from tandem.engine.model_runner import ModelRunner
from tandem.engine.round_loop import OnEnter, RoundLoop
from tandem.engine.run_ahead import RunAhead, captured_shapes
from tandem.engine.scheduler import Scheduler
from tandem.engine.shared_tables import SharedTables
from tandem.engine.speculation import Speculation
from tandem.engine.steady_round import SteadyRound
from tandem.engine.steady_runner import SteadyRunner
from tandem.exchange.draft_inputs import DraftInputs
from tandem.kv_cache.kv_allocator import KvAllocator
from tandem.kv_cache.storage import KvStorage
from tandem.models.gemma4.target import Gemma4Target
from tandem.sampling.judge import Judge, judge
from tandem.telemetry.metrics import Metrics

_USUAL_DRAFTS = (2, 4, 7, 11)  # a round

MakePolicy = Callable[[int, int], DraftPolicy]  # for so many drafters, and rows of a step at most


def make_storage(
    target: Gemma4Target,
    limits: EngineLimits,
    shared_kv: Mapping[str, torch.Tensor] | None = None,  # group -> [num_slots, 2, num_kv_heads, head_dim]
    kv_dtype: torch.dtype | None = None,
) -> KvStorage:
    """The KV tensors of a target whose weights have been filled.

    Args:
        target: the network.
        limits: how much it must hold.
        shared_kv: those that a drafter reads, if they exist already.
        kv_dtype: of keys and values; None: the network's own.
    """
    dtype, device = kv_dtype or target.embed_tokens.dtype, target.embed_tokens.device
    shared = {target.drafter_layers[group]: tensor for group, tensor in (shared_kv or {}).items()}

    def allocate(layer_id: int, shape: tuple[int, ...]) -> torch.Tensor:
        return shared[layer_id] if layer_id in shared else torch.zeros(shape, dtype=dtype, device=device)

    return KvStorage(
        target.stored_groups,
        limits.stored_blocks(target.config),
        limits.block_size,
        dtype,
        device,
        allocate,
        target.kv_scales(dtype),
    )


def drafter_kv(target: Gemma4Target, storage: KvStorage) -> dict[str, torch.Tensor]:
    """Group -> the KV tensor [num_slots, 2, num_kv_heads, head_dim] that a drafter reads."""
    return {group: storage[layer_id] for group, layer_id in target.drafter_layers.items()}


def make_engine(
    target: Gemma4Target,
    storage: KvStorage,
    inputs: DraftInputs,
    drafters: Sequence[DraftSource],
    limits: EngineLimits,
    metrics: Metrics,
    publish: Publish,
    adaptive_k: bool = False,
    judge: Judge = judge,
    is_k_fixed: bool = True,
    on_enter: OnEnter | None = None,
    adaptive: MakePolicy = AdaptiveDrafts,
) -> Engine:
    """An engine that is not started.

    Rounds run ahead of the host where attention can be planned on the device and no drafter needs the host.

    Args:
        target: the network.
        storage: from `make_storage`.
        inputs: where the drafter reads; its KV is that of `storage`.
        drafters: who drafts; none: nobody.
        limits: what `storage` and `inputs` were made for.
        metrics: where everything is counted.
        publish: told each round's outputs, on the engine's thread; returns at once.
        adaptive_k: drafts as much as pays, instead of as much as is asked for.
        judge: says which drafts stand.
        is_k_fixed: drafters make as many drafts as `limits` has room for, or it is theirs to say how many they make.
        on_enter: told which sequence has taken which slot, on the engine's thread.
        adaptive: makes the policy behind `adaptive_k`.
    """
    kv = KvAllocator(target.kv_groups, limits.num_blocks(target.config), limits.block_size)
    tables = SharedTables(kv, [group.name for group in target.kv_groups])
    runner = ModelRunner(target, storage, kv, inputs, tables, judge)
    scheduler = Scheduler(limits, kv)
    chosen: DraftPolicy = adaptive(len(drafters), limits.max_step_tokens) if adaptive_k else FixedDrafts()
    policy = MeasuredDrafts(chosen, metrics)
    speculation = Speculation(drafters, policy, scheduler, runner.vocabulary_size, metrics)
    ahead = None
    if (
        isinstance(target.backend, DevicePlanner)
        and all(isinstance(one, AheadSource) for one in drafters)
        and len(drafters) <= 1
    ):
        steady = SteadyRound(
            target, storage, inputs, _draft_slots(inputs, drafters), limits.spare_blocks(target.config), judge
        )
        counts = draft_counts(limits.max_draft_tokens, is_k_fixed and not adaptive_k)
        steady_runner = SteadyRunner(steady, captured_shapes(limits, counts))
        ahead = RunAhead(scheduler, kv, tables, steady_runner, drafters[0] if drafters else None, policy, counts)
    return Engine(RoundLoop(scheduler, runner, kv, speculation, metrics, ahead, on_enter), publish)


def draft_counts(most: int, is_k_fixed: bool) -> list[int]:
    """Numbers of drafts that rounds are captured for: none and all, and some between if fewer are likely.

    Only some: each takes time and memory at start, while rows beyond those that are needed hardly cost a round any.
    """
    return sorted({0, most, *(count for count in _USUAL_DRAFTS if not is_k_fixed and count < most)})


def _draft_slots(inputs: DraftInputs, drafters: Sequence[DraftSource]) -> torch.Tensor:  # [num_slots, K] int64
    """Where the one drafter writes, if there is one."""
    if drafters:
        assert isinstance(drafters[0], AheadSource)
        return drafters[0].drafts
    shape = (inputs.spec.num_slots, inputs.spec.max_draft_tokens)
    return torch.zeros(shape, dtype=torch.int64, device=inputs.token_ids.device)
