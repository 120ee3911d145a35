"""Loads what a verifier serves: the target, and all that stands around it."""

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tandem.core.errors import ConfigError
from tandem.engine.assembly import drafter_kv, make_storage
from tandem.engine.device_drafter import DeviceDrafter
from tandem.engine.draft_source import DrafterInfo, DraftSource
from tandem.engine.in_process_ahead import InProcessAhead
from tandem.engine.in_process_drafter import InProcessDrafter
from tandem.engine.limits import EngineLimits
from tandem.engine.mtp_drafter import MtpDrafter
from tandem.engine.shared_scales import scaled_spec
from tandem.exchange.cuda_device import cuda_device
from tandem.exchange.draft_inputs import DTYPES, DraftInputs, private_inputs
from tandem.exchange.shared_exchange import SharedExchange
from tandem.exchange.spec import ExchangeSpec
from tandem.kv_cache.storage import KvStorage
from tandem.models.checkpoint import Part, open_checkpoint
from tandem.models.gemma4.config import Gemma4TextConfig, read_target_config
from tandem.models.gemma4.fp8_linear import Fp8Linear
from tandem.models.gemma4.leading import lead
from tandem.models.gemma4.linear import Linear
from tandem.models.gemma4.shares import check_shares
from tandem.models.gemma4.target import Gemma4Target
from tandem.models.gemma4.weight_source import WeightSource
from tandem.models.gemma4.weights import CHECKPOINT, load_drafter, load_target
from tandem.models.generation_config import GenerationConfig, read_generation_config
from tandem.models.progress import log_progress
from tandem.models.ranks import ALONE, Ranks
from tandem.rpc.conversion import RequestDefaults
from tandem.sampling.vocabulary import Vocabulary
from tandem.v1 import model_service_pb2
from tandem.verifier.config import AS_DTYPE, FP8, IN_PROCESS, NO_DRAFTER, VerifierConfig, num_threads
from tandem.verifier.rank_processes import RANK_MODULE, RankProcesses

if TYPE_CHECKING:
    from tandem.exchange.cuda_exchange import CudaExchange

logger = logging.getLogger(__name__)

KV_DTYPES = {AS_DTYPE: "", FP8: "float8_e4m3fn"}  # as an exchange has them


@dataclass(frozen=True)
class LoadedModel:
    """A target with its KV cache, and where a drafter reads."""

    name: str
    config: Gemma4TextConfig
    generation: GenerationConfig
    revision: str
    limits: EngineLimits
    target: Gemma4Target
    storage: KvStorage
    inputs: DraftInputs
    exchange: "SharedExchange | CudaExchange | None"  # None: no other process reads
    other_ranks: RankProcesses | None  # None: this process computes alone
    vocabulary: Vocabulary | None  # for grammars; None: the checkpoint has no tokenizer that they could use


def load(config: VerifierConfig, weights: WeightSource = CHECKPOINT, rank_module: str = RANK_MODULE) -> LoadedModel:
    """Reads the checkpoint; takes as long as the disk does.

    Args:
        config: which one, and what for.
        weights: where the target's come from.
        rank_module: run by the other ranks, if there are any; it takes weights from the same place.

    Raises:
        ConfigError: the checkpoint, or a setting that contradicts it.
        EngineFault: another rank ended.
    """
    _require_devices(config)
    checkpoint = open_checkpoint(config.target, Part.MODEL)
    folder = checkpoint.folder
    model = read_target_config(folder)
    check_shares(model, config.tensor_parallel)
    generation = read_generation_config(folder)
    limits = _limits(config, model)
    spec = limits.exchange_spec(model, config.dtype, KV_DTYPES[config.kv_dtype])
    with ExitStack() as held:
        exchange = _make_exchange(config, spec)
        if exchange:
            held.callback(exchange.close)
        others = None
        if config.tensor_parallel > 1:
            others = RankProcesses(config, rank_module)
            held.callback(others.close)
        ranks = others.ranks if others else ALONE
        target, storage, limits = load_share(config, ranks, weights, exchange.inputs if exchange else None)
        if others:
            others.join(target.embed_tokens.device)
            lead(target, others.ranks, others.tell)
        spec = scaled_spec(spec, target, storage)
        if exchange:
            exchange.respecify(spec)
        held.pop_all()
    inputs = exchange.inputs if exchange else private_inputs(spec, drafter_kv(target, storage), target.embed_tokens)
    logger.info("KV cache: %d tokens, %.1f MB", config.kv_tokens, storage.num_bytes / 1e6)
    name = config.model_name or checkpoint.name
    vocabulary = _load_vocabulary(folder, model.vocab_size, generation)
    revision = weights.revision(folder)
    return LoadedModel(name, model, generation, revision, limits, target, storage, inputs, exchange, others, vocabulary)


def load_share(
    config: VerifierConfig,
    ranks: Ranks,
    weights: WeightSource,
    shared: DraftInputs | None = None,
) -> tuple[Gemma4Target, KvStorage, EngineLimits]:
    """What one rank computes with: its share of the target and of the KV cache, and what that is made for.

    Args:
        config: which target.
        ranks: who shares it; one that computes alone has all.
        weights: where they come from.
        shared: where the token table and some layers' KV go, if a drafter in another process reads them.

    Raises:
        CheckpointError: the folder does not hold exactly such a target.
    """
    torch.set_num_threads(num_threads(config.threads, ranks.size))
    checkpoint = open_checkpoint(config.target, Part.MODEL)
    target = load_target(
        checkpoint.folder,
        DTYPES[config.dtype],
        config.device,
        embedding=shared.embedding if shared else None,
        progress=log_progress(checkpoint.name),
        weights=weights,
        linear=Fp8Linear if config.weights == FP8 else Linear,
        ranks=ranks,
    )
    limits, kv_dtype = _limits(config, target.config), DTYPES.get(KV_DTYPES[config.kv_dtype])
    return target, make_storage(target, limits, shared.kv if shared else None, kv_dtype), limits


def load_in_process_drafter(
    config: VerifierConfig, model: LoadedModel, weights: WeightSource = CHECKPOINT
) -> DraftSource:
    """The drafter inside this process; on a GPU without the host between it and the target.

    Raises:
        ConfigError: its checkpoint, or one that does not fit the target.
    """
    checkpoint = open_checkpoint(config.draft_model, Part.MODEL)
    generation = read_generation_config(checkpoint.folder)
    network = load_drafter(
        checkpoint.folder,
        model.config,
        DTYPES[config.dtype],
        config.device,
        model.inputs.embedding,
        log_progress(checkpoint.name),
        weights,
    )
    k = generation.num_assistant_tokens if config.num_speculative_tokens is None else config.num_speculative_tokens
    info = DrafterInfo(checkpoint.name, min(k, config.max_draft_tokens), weights.revision(checkpoint.folder))
    if config.device == "cpu":
        drafter = MtpDrafter(network, model.inputs, config.draft_position, generation.suppress_token_ids)
        return InProcessDrafter(drafter, info)
    shape = (model.inputs.spec.num_slots, model.inputs.spec.max_draft_tokens)
    drafts = torch.zeros(shape, dtype=torch.int64, device=config.device)
    ahead = DeviceDrafter(network, model.inputs, drafts, config.draft_position, generation.suppress_token_ids)
    ahead.capture(info.num_speculative_tokens)
    return InProcessAhead(ahead, info)


def describe(config: VerifierConfig, model: LoadedModel) -> model_service_pb2.Model:
    """The model for people and gateways, without its drafter."""
    generation = model.generation
    return model_service_pb2.Model(
        name=model.name,
        context_length=model.limits.max_context,
        vocabulary_size=model.config.vocab_size,
        dtype=config.dtype,
        revision=model.revision,
        eos_token_ids=sorted(generation.eos_token_ids),
        default_sampling=model_service_pb2.DefaultSampling(
            temperature=generation.temperature, top_p=generation.top_p, top_k=generation.top_k
        ),
    )


def defaults(model: LoadedModel) -> RequestDefaults:
    """What the model means by a field that a request leaves out."""
    generation = model.generation
    return RequestDefaults(
        context_length=model.limits.max_context,
        vocabulary_size=model.config.vocab_size,
        eos_token_ids=generation.eos_token_ids,
        num_speculative_tokens=model.limits.max_draft_tokens,
        temperature=generation.temperature,
        top_k=generation.top_k,
        top_p=generation.top_p,
        suppress_token_ids=generation.suppress_token_ids,
    )


def _require_devices(config: VerifierConfig) -> None:
    if config.device != "cuda":
        return
    if not torch.cuda.is_available():
        raise ConfigError("--device cuda: no CUDA device is visible here")
    num_devices = torch.cuda.device_count()
    if num_devices < config.tensor_parallel:
        raise ConfigError(
            f"--tensor-parallel {config.tensor_parallel} needs as many GPUs; {num_devices} can be seen here"
        )


def _make_exchange(config: VerifierConfig, spec: ExchangeSpec) -> "SharedExchange | CudaExchange | None":
    """Memory for a drafter in another process, where the target computes."""
    if config.drafter in (IN_PROCESS, NO_DRAFTER):
        return None
    if config.device == "cpu":
        return SharedExchange(spec, config.exchange_directory)
    device = cuda_device(config.device)
    from tandem.exchange.cuda_exchange import CudaExchange  # needs a package that the CPU can do without

    return CudaExchange(spec, device, config.exchange_directory)


def _load_vocabulary(folder: Path, size: int, generation: GenerationConfig) -> Vocabulary | None:
    try:
        return Vocabulary.load(folder, size, generation.eos_token_ids)
    except ConfigError as error:  # only requests that ask for grammars miss it
        logger.warning("no grammars: %s", error)
        return None


def _limits(config: VerifierConfig, model: Gemma4TextConfig) -> EngineLimits:
    longest = model.max_position_embeddings
    if config.max_context > longest:
        raise ConfigError(f"--max-context is {config.max_context}, but the target was made for {longest} tokens")
    return EngineLimits(
        max_sequences=config.max_sequences,
        max_step_tokens=config.max_rows,
        max_draft_tokens=config.max_draft_tokens,
        max_queue=config.max_queue,
        max_context=config.max_context or longest,
        kv_tokens=config.kv_tokens,
        block_size=config.block_size,
        prefix_cache=config.prefix_cache,
    )
