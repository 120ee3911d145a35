"""Loads what a verifier serves: the target, and all that stands around it."""

import logging
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
from tandem.models.gemma4.linear import Linear
from tandem.models.gemma4.target import Gemma4Target
from tandem.models.gemma4.weight_source import WeightSource
from tandem.models.gemma4.weights import CHECKPOINT, load_drafter, load_target
from tandem.models.generation_config import GenerationConfig, read_generation_config
from tandem.models.progress import log_progress
from tandem.rpc.conversion import RequestDefaults
from tandem.sampling.vocabulary import Vocabulary
from tandem.v1 import model_service_pb2
from tandem.verifier.config import AS_DTYPE, FP8, IN_PROCESS, NO_DRAFTER, VerifierConfig, num_threads

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
    vocabulary: Vocabulary | None  # for grammars; None: the checkpoint has no tokenizer that they could use


def load(config: VerifierConfig, weights: WeightSource = CHECKPOINT) -> LoadedModel:
    """Reads the checkpoint; takes as long as the disk does.

    Args:
        config: which one, and what for.
        weights: where the target's come from.

    Raises:
        ConfigError: the checkpoint, or a setting that contradicts it.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: no CUDA device is visible here")
    torch.set_num_threads(num_threads(config.threads))
    checkpoint = open_checkpoint(config.target, Part.MODEL)
    folder = checkpoint.folder
    model = read_target_config(folder)
    generation = read_generation_config(folder)
    limits = _limits(config, model)
    kv_dtype = KV_DTYPES[config.kv_dtype]
    spec = limits.exchange_spec(model, config.dtype, kv_dtype)
    exchange = _make_exchange(config, spec)
    try:
        target = load_target(
            folder,
            DTYPES[config.dtype],
            config.device,
            embedding=exchange.inputs.embedding if exchange else None,
            progress=log_progress(checkpoint.name),
            weights=weights,
            linear=Fp8Linear if config.weights == FP8 else Linear,
        )
        storage = make_storage(target, limits, exchange.inputs.kv if exchange else None, DTYPES.get(kv_dtype))
        spec = scaled_spec(spec, target, storage)
        if exchange:
            exchange.respecify(spec)
    except BaseException:
        if exchange:
            exchange.close()
        raise
    inputs = exchange.inputs if exchange else private_inputs(spec, drafter_kv(target, storage), target.embed_tokens)
    logger.info("KV cache: %d tokens, %.1f MB", config.kv_tokens, storage.num_bytes / 1e6)
    name = config.model_name or checkpoint.name
    vocabulary = _load_vocabulary(folder, model.vocab_size, generation)
    revision = weights.revision(folder)
    return LoadedModel(name, model, generation, revision, limits, target, storage, inputs, exchange, vocabulary)


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
