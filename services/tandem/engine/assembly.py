"""Puts an engine together from a target and its limits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from tandem.engine.adaptive_drafts import AdaptiveDrafts
from tandem.engine.draft_policy import FixedDrafts
from tandem.engine.draft_source import DraftSource
from tandem.engine.engine import Engine, Publish
from tandem.engine.limits import EngineLimits
from tandem.engine.model_runner import ModelRunner
from tandem.engine.round_loop import RoundLoop
from tandem.engine.scheduler import Scheduler
from tandem.engine.speculation import Speculation
from tandem.exchange.draft_inputs import DraftInputs
from tandem.exchange.spec import ExchangeSpec
from tandem.kv_cache.kv_allocator import KvAllocator
from tandem.kv_cache.storage import KvStorage
from tandem.models.gemma4.target import Gemma4Target
from tandem.telemetry.metrics import Metrics


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
        target.kv_groups,
        limits.num_blocks(target.config),
        limits.block_size,
        dtype,
        device,
        allocate,
        target.kv_scales(dtype),
    )


def scaled_spec(spec: ExchangeSpec, target: Gemma4Target, storage: KvStorage) -> ExchangeSpec:
    """`spec` with the scales of the KV that a drafter reads."""
    scales = {group: storage.scales(layer_id) for group, layer_id in target.drafter_layers.items()}
    return replace(
        spec,
        layers=tuple(
            replace(
                layer,
                key_exponent=scales[layer.group].key_exponent,
                value_exponent=scales[layer.group].value_exponent,
            )
            for layer in spec.layers
        ),
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
) -> Engine:
    """An engine that is not started.

    Args:
        target: the network.
        storage: from `make_storage`.
        inputs: where the drafter reads; its KV is that of `storage`.
        drafters: who drafts; none: nobody.
        limits: what `storage` and `inputs` were made for.
        metrics: where everything is counted.
        publish: told each round's outputs, on the engine's thread; returns at once.
        adaptive_k: drafts as much as pays, instead of as much as is asked for.
    """
    kv = KvAllocator(target.kv_groups, limits.num_blocks(target.config), limits.block_size)
    runner = ModelRunner(target, storage, kv, inputs)
    scheduler = Scheduler(limits, kv)
    policy = AdaptiveDrafts(len(drafters), limits.max_step_tokens) if adaptive_k else FixedDrafts()
    speculation = Speculation(drafters, policy, scheduler, runner.vocabulary_size, metrics)
    return Engine(RoundLoop(scheduler, runner, kv, speculation, metrics), publish)
