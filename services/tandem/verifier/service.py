"""The verifier's process: listens at once, loads, warms up, and only then serves."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tandem.core.config import describe as describe_config
from tandem.core.errors import EngineFault
from tandem.core.sampling_params import SamplingParams, StoppingParams
from tandem.core.sequence import FinishReason, Sequence
from tandem.engine.adaptive_drafts import AdaptiveDrafts
from tandem.engine.assembly import MakePolicy, make_engine
from tandem.engine.draft_source import DraftSource
from tandem.engine.engine import Engine
from tandem.exchange.shared_exchange import SharedExchange
from tandem.internal.v1 import verifier_service_pb2, verifier_service_pb2_grpc
from tandem.models.gemma4.weight_source import WeightSource
from tandem.models.gemma4.weights import CHECKPOINT
from tandem.models.progress import log_progress
from tandem.rpc.channel import MAX_MESSAGE_BYTES
from tandem.rpc.lifecycle import serve_until_stopped
from tandem.rpc.server import RpcServer, ServerLimits
from tandem.sampling.judge import Judge, judge
from tandem.telemetry.metric import VERIFIER
from tandem.telemetry.metrics import Metrics
from tandem.telemetry.publishing import publish
from tandem.verifier import model as models
from tandem.verifier.ahead_link import AheadLink
from tandem.verifier.config import IN_PROCESS, VerifierConfig
from tandem.verifier.drafter_link import DrafterLink
from tandem.verifier.grammar_compiler import GrammarCompiler
from tandem.verifier.memory_carrier import MemoryCarrier
from tandem.verifier.model import LoadedModel
from tandem.verifier.output_streams import OutputStreams
from tandem.verifier.rank_processes import RANK_MODULE, RankProcesses
from tandem.verifier.token_carrier import TokenCarrier
from tandem.verifier.verifier_service import ServedModel, VerifierService

logger = logging.getLogger(__name__)

VERIFIER_SERVICE: str = verifier_service_pb2.DESCRIPTOR.services_by_name["VerifierService"].full_name
MAX_CONCURRENT_STREAMS = 4096  # a gateway holds all its requests on one connection
WARM_UP_SEQUENCE_ID = 0
WARM_UP_TOKENS = 16
WARM_UP_CACHE_SALT = "warm-up"


@dataclass(frozen=True)
class Verifier:
    """A verifier that listens."""

    server: RpcServer
    address: str
    metrics: Metrics
    background: list[Coroutine[Any, Any, None]]  # to run for as long as it serves


async def run(
    config: VerifierConfig,
    weights: WeightSource = CHECKPOINT,
    judge: Judge = judge,
    rank_module: str = RANK_MODULE,
    adaptive: MakePolicy = AdaptiveDrafts,
) -> None:
    """Serves until the process is told to stop.

    Args:
        config: the settings.
        weights: where those of target and drafter come from.
        judge: says which drafts stand. No setting reaches this, the weights or the policy: only a benchmark has others.
        rank_module: run by the target's other ranks, if there are any; its weights come from the same place.
        adaptive: makes the policy of adaptive K.

    Raises:
        ConfigError: the verifier cannot start with `config`.
        EngineFault: the engine died, or another rank.
    """
    logger.info("verifier: %s", describe_config(config))
    async with open_verifier(config, weights, judge, rank_module, adaptive) as verifier:
        logger.info("verifier ready on %s", verifier.address)
        background = [*verifier.background, publish(verifier.metrics, config.metrics_listen)]
        await serve_until_stopped(verifier.server, config.drain_seconds, background)


@asynccontextmanager
async def open_verifier(
    config: VerifierConfig,
    weights: WeightSource = CHECKPOINT,
    judge: Judge = judge,
    rank_module: str = RANK_MODULE,
    adaptive: MakePolicy = AdaptiveDrafts,
) -> AsyncIterator[Verifier]:
    """A verifier that is warm and says SERVING; the drafter, if any, comes when it comes. See `run`.

    Raises:
        ConfigError: the verifier cannot start with `config`.
        EngineFault: a rank of the target ended while it was loaded.
    """
    metrics = Metrics(VERIFIER)
    streams = OutputStreams(asyncio.get_running_loop())
    service = VerifierService(streams, metrics)
    limits = ServerLimits(MAX_MESSAGE_BYTES, MAX_CONCURRENT_STREAMS)
    server = RpcServer(limits=limits, tls=config.tls, metrics=metrics)
    server.add(verifier_service_pb2_grpc.add_VerifierServiceServicer_to_server, service, VERIFIER_SERVICE)
    try:
        # Listens before it loads: whoever asks is told to wait, and two verifiers on one address notice early.
        address = await server.start(config.listen, config.health_listen)
        model = await asyncio.to_thread(models.load, config, weights, rank_module)
        try:
            drafters, background = await _drafters(config, model, metrics, weights)
            engine = make_engine(
                model.target,
                model.storage,
                model.inputs,
                drafters,
                model.limits,
                metrics,
                streams.publish,
                config.adaptive_k,
                judge,
                is_k_fixed=config.num_speculative_tokens is not None,
                on_enter=lambda slot, sequence: _announce(drafters, slot, sequence),
                adaptive=adaptive,
            )
            if config.adaptive_k and drafters and model.limits.max_draft_tokens:
                await asyncio.to_thread(engine.calibrate)
            await asyncio.to_thread(engine.capture, log_progress("rounds"))
            engine.start()
            try:
                await _warm_up(engine, streams)
                grammars = GrammarCompiler(model.vocabulary)
                service.serve(
                    ServedModel(models.describe(config, model), models.defaults(model), engine, drafters, grammars)
                )
                server.set_serving(True)
                if model.other_ranks:
                    background.append(_watch_ranks(model.other_ranks))
                yield Verifier(server, address, metrics, [*background, _watch(engine)])
            finally:
                await server.stop(0)
                await asyncio.to_thread(engine.stop)
        finally:
            if model.other_ranks:
                await asyncio.to_thread(model.other_ranks.close)
            if model.exchange:
                model.exchange.close()
    finally:
        await server.stop(0)


async def _drafters(
    config: VerifierConfig, model: LoadedModel, metrics: Metrics, weights: WeightSource
) -> tuple[list[DraftSource], list[Coroutine[Any, Any, None]]]:
    """Who drafts, and what has to run beside the server for that."""
    inside: list[DraftSource] = []
    if config.drafter == IN_PROCESS:
        inside.append(await asyncio.to_thread(models.load_in_process_drafter, config, model, weights))
    seconds = config.draft_timeout_ms / 1000
    links: list[DrafterLink] = []
    if isinstance(model.exchange, SharedExchange):
        links.append(DrafterLink(config.drafter, MemoryCarrier(model.exchange), model.revision, seconds, metrics))
    elif model.exchange:
        links.append(AheadLink(config.drafter, model.exchange, model.revision, seconds, metrics))
    if config.lookup_drafter:
        limits = model.limits
        carrier = TokenCarrier(limits.max_sequences, model.config.vocab_size, limits.max_draft_tokens)
        links.append(DrafterLink(config.lookup_drafter, carrier, model.revision, seconds, metrics))
    return [*inside, *links], [link.follow() for link in links]


def _announce(drafters: list[DraftSource], slot: int, sequence: Sequence) -> None:
    """Tells drafters that are processes of their own which trace the sequence in a slot belongs to."""
    for drafter in drafters:
        if isinstance(drafter, DrafterLink):
            drafter.traces.enter(slot, sequence.traceparent)


async def _warm_up(engine: Engine, streams: OutputStreams) -> None:
    """Runs every kind of step once, so that the first request does not wait for what is made at first use."""
    sequence = Sequence(
        WARM_UP_SEQUENCE_ID,
        (0,) * WARM_UP_TOKENS,
        SamplingParams(temperature=0.0),
        StoppingParams(WARM_UP_TOKENS),
        cache_salt=WARM_UP_CACHE_SALT,
    )
    async for output in streams.generate(engine, sequence):
        if output.end and output.end.reason is not FinishReason.LENGTH:
            raise EngineFault("the engine failed while warming up")


async def _watch(engine: Engine) -> None:
    """Ends with the engine: a verifier without one must not look alive.

    Raises:
        EngineFault: what it died of has been logged.
    """
    if await asyncio.to_thread(engine.wait_until_dead):
        raise EngineFault("the engine died")


async def _watch_ranks(ranks: RankProcesses) -> None:
    """Ends with the first rank that does: the others can compute nothing without it.

    Raises:
        EngineFault: says which one.
    """
    await asyncio.to_thread(ranks.wait_for_end)
    raise EngineFault(ranks.describe_end())
