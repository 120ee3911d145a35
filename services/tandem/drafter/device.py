"""The drafter's network, and the one thread that touches it."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

import torch

from tandem.core.errors import ConfigError, ExchangeError
from tandem.drafter.config import MAX_SPECULATIVE_TOKENS, DrafterConfig
from tandem.drafter.file_rounds import FileRounds
from tandem.engine.device_drafter import DeviceDrafter
from tandem.engine.draft_source import DrafterInfo
from tandem.engine.mtp_drafter import MtpDrafter
from tandem.exchange.attached_exchange import AttachedExchange
from tandem.exchange.cuda_device import cuda_device
from tandem.exchange.draft_inputs import DTYPES, DraftInputs, private_inputs
from tandem.exchange.offer import CudaOffer, FileOffer
from tandem.exchange.spec import ExchangeSpec, SharedLayer
from tandem.models.checkpoint import Checkpoint, Part, open_checkpoint
from tandem.models.gemma4.config import read_target_config
from tandem.models.gemma4.drafter import Gemma4MtpDrafter
from tandem.models.gemma4.weight_source import WeightSource
from tandem.models.gemma4.weights import CHECKPOINT, load_drafter
from tandem.models.generation_config import GenerationConfig, read_generation_config
from tandem.models.progress import log_progress

logger = logging.getLogger(__name__)

# A verifier of another one makes the weights be read again, once.
FIRST_DTYPES = {"cpu": "float32", "cuda": "bfloat16"}
_WARM_UP_BLOCK = 16

P = ParamSpec("P")
T = TypeVar("T")


class Rounds(Protocol):
    """One verifier's exchange, and a drafter over it."""

    def draft(self, round_number: int, slots: Sequence[int], num_tokens: int) -> list[int]:
        """Drafts for a round; how many tokens each slot is given."""
        ...

    def release(self) -> None:
        """Nobody will write inputs any more. Any thread may call it, even while `draft` runs."""
        ...

    def close(self) -> None:
        """Lets go of the exchange."""
        ...


@dataclass(frozen=True)
class Attachment:
    """A verifier that is drafted for."""

    generation: int
    rounds: Rounds
    max_tokens: int  # of a round


class Device:
    """Everything here happens on the thread of its own, in the order in which it was asked for."""

    def __init__(self, config: DrafterConfig, weights: WeightSource = CHECKPOINT) -> None:
        """Nothing is loaded yet; `weights` says where the network's come from."""
        self._config = config
        self._weights = weights
        self._device = torch.device(config.device)
        self._thread = ThreadPoolExecutor(1, "device")
        self._checkpoint: Checkpoint | None = None
        self._generation: GenerationConfig | None = None
        self._network: Gemma4MtpDrafter | None = None
        self._attachment: Attachment | None = None

    async def load(self) -> DrafterInfo:
        """Finds the checkpoint, reads the weights and runs the network once; returns who drafts.

        Raises:
            CheckpointError: there is no such drafter, or it was made for another target.
        """
        return await self._run(self._open)

    async def attach(self, offer: FileOffer | CudaOffer) -> None:
        """Opens a verifier's exchange. If that works, the one attached before is closed.

        Raises:
            ExchangeError: the exchange does not fit this drafter, or is not what it should be.
        """
        await self._run(self._attach, offer)

    async def draft(
        self, generation: int, round_number: int, slots: Sequence[int], num_tokens: int
    ) -> list[int] | None:
        """Drafts for a round, and writes the drafts; returns their counts, or None if that exchange is not attached."""
        return await self._run(self._draft, generation, round_number, slots, num_tokens)

    def detach(self, generation: int) -> None:
        """Closes that exchange, if it is the one attached, as soon as what was asked for is done."""
        attachment = self._attachment
        if attachment and attachment.generation == generation:
            attachment.rounds.release()  # what was asked for may wait for what will not come
        self._thread.submit(self._detach, generation)

    def close(self) -> None:
        """Ends the thread after what it is doing."""
        attachment = self._attachment
        if attachment:
            attachment.rounds.release()
        self._thread.submit(self._detach, None)
        self._thread.shutdown(wait=False)

    async def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        assert not kwargs
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    def _open(self) -> DrafterInfo:
        if self._device.type == "cuda":
            self._device = cuda_device(self._config.device)
            torch.cuda.set_device(self._device)
        torch.set_num_threads(self._config.threads or len(os.sched_getaffinity(0)))
        self._checkpoint = open_checkpoint(self._config.draft_model, Part.MODEL)
        self._generation = read_generation_config(self._checkpoint.folder)
        self._load(FIRST_DTYPES[self._device.type])
        return DrafterInfo(
            self._checkpoint.name, self._num_speculative_tokens, self._weights.revision(self._checkpoint.folder)
        )

    @property
    def _num_speculative_tokens(self) -> int:
        """Most draft tokens a round: as we were told, or as the checkpoint says."""
        assert self._generation, "load comes first"
        return self._config.num_speculative_tokens or min(self._generation.num_assistant_tokens, MAX_SPECULATIVE_TOKENS)

    def _load(self, dtype: str) -> None:
        assert self._checkpoint, "load comes first"
        started = time.monotonic()
        name, folder = self._checkpoint.name, self._checkpoint.folder
        target_config = read_target_config(open_checkpoint(self._config.target, Part.CONFIG).folder)
        self._network = load_drafter(
            folder, target_config, DTYPES[dtype], self._device, None, log_progress(name), self._weights
        )
        _warm_up(self._network, dtype, self._device)
        logger.info("%s loaded as %s in %.1f s", name, dtype, time.monotonic() - started)

    def _attach(self, offer: FileOffer | CudaOffer) -> None:
        assert self._network, "load comes first"
        check_fit(offer.spec, self._network)
        make_rounds = self._open_exchange(offer)
        self._detach(None)
        if DTYPES[offer.spec.dtype] != self._network.dtype:
            self._load(offer.spec.dtype)
        self._attachment = Attachment(
            generation=offer.generation,
            rounds=make_rounds(),
            max_tokens=min(self._num_speculative_tokens, offer.spec.max_draft_tokens),
        )

    def _open_exchange(self, offer: FileOffer | CudaOffer) -> Callable[[], Rounds]:
        """Opens it; what is returned lets the network draft over it."""
        if isinstance(offer, FileOffer):
            if self._device.type != "cpu":
                raise ExchangeError("the verifier shares files, with a drafter that has --device cpu")
            files = AttachedExchange(offer.spec, offer.generation, offer.target_path, offer.drafts_path)
            return lambda: FileRounds(files, self._drafter(files.inputs))
        if self._device.type != "cuda":
            raise ExchangeError("the verifier shares GPU memory, with a drafter that has --device cuda")
        # Here, because a drafter on the CPU can do without the package that they need.
        from tandem.drafter.cuda_rounds import CudaRounds
        from tandem.exchange.attached_cuda_exchange import AttachedCudaExchange

        memory = AttachedCudaExchange(offer, self._device)
        return lambda: CudaRounds(memory, self._device, self._captured_drafter(memory.inputs, memory.drafts).draft)

    def _drafter(self, inputs: DraftInputs) -> MtpDrafter:
        assert self._network and self._generation, "load comes first"
        return MtpDrafter(self._network, inputs, self._config.draft_position, self._generation.suppress_token_ids)

    def _captured_drafter(
        self,
        inputs: DraftInputs,
        drafts: torch.Tensor,  # [num_slots, max_draft_tokens] int64
    ) -> DeviceDrafter:
        """Rounds of as many tokens as we draft at most, and of fewer, are captured before the verifier asks for any."""
        assert self._network and self._generation, "load comes first"
        started = time.monotonic()
        drafter = DeviceDrafter(
            self._network, inputs, drafts, self._config.draft_position, self._generation.suppress_token_ids
        )
        most = min(self._num_speculative_tokens, inputs.spec.max_draft_tokens)
        drafter.capture(most)
        logger.info("rounds of up to %d tokens captured in %.1f s", most, time.monotonic() - started)
        return drafter

    def _draft(self, generation: int, round_number: int, slots: Sequence[int], num_tokens: int) -> list[int] | None:
        attachment = self._attachment
        if attachment is None or attachment.generation != generation:
            return None
        return attachment.rounds.draft(round_number, slots, min(num_tokens, attachment.max_tokens))

    def _detach(self, generation: int | None) -> None:
        """Lets go of the exchange of a generation, or with None of any."""
        attachment = self._attachment
        if attachment and generation in (None, attachment.generation):
            assert self._network
            attachment.rounds.close()
            self._network.bind(None)
            self._attachment = None


def check_fit(spec: ExchangeSpec, network: Gemma4MtpDrafter) -> None:
    """Raises ExchangeError unless the network can read what a verifier shares."""
    layers = {layer.group: layer for layer in spec.layers}
    pairs = {
        "vocabulary_size": (network.config.text.vocab_size, spec.vocabulary_size),
        "hidden_size": (network.config.backbone_hidden_size, spec.hidden_size),
    }
    for group in network.kv_groups:
        layer = layers.get(group.name)
        if layer is None:
            raise ExchangeError(f"the drafter reads a {group.name} layer, which is not shared")
        pairs[f"num_kv_heads of {group.name}"] = (group.num_kv_heads, layer.num_kv_heads)
        pairs[f"head_dim of {group.name}"] = (group.head_dim, layer.head_dim)
    for name, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise ExchangeError(f"{name} is {ours} in the drafter, {theirs} in the target")


def _warm_up(network: Gemma4MtpDrafter, dtype: str, device: torch.device) -> None:
    """Drafts once from zeros: what torch does at its first use of an operation is then no verifier's wait."""
    text, backbone = network.config.text, network.config.backbone_hidden_size
    spec = ExchangeSpec(
        dtype=dtype,
        num_slots=1,
        max_draft_tokens=1,
        max_blocks=1,
        block_size=_WARM_UP_BLOCK,
        vocabulary_size=text.vocab_size,
        hidden_size=backbone,
        layers=tuple(SharedLayer(group.name, 1, group.num_kv_heads, group.head_dim) for group in network.kv_groups),
    )
    kv = {
        group.name: torch.zeros(_WARM_UP_BLOCK, *group.slot_shape, dtype=DTYPES[dtype], device=device)
        for group in network.kv_groups
    }
    # One row repeated stands for a table that may have gigabytes.
    embedding = torch.zeros(1, backbone, dtype=DTYPES[dtype], device=device).expand(text.vocab_size, backbone)
    inputs = private_inputs(spec, kv, embedding)
    inputs.positions[0] = 1
    for group in network.kv_groups:
        inputs.set_blocks(0, group.name, 0, [0])
    drafter = MtpDrafter(network, inputs)
    for temperature, top_k in ((0.0, 0), (1.0, 64), (1.0, 0)):
        inputs.temperature[0], inputs.top_k[0] = temperature, top_k
        if not drafter.propose([0], 1)[0]:
            raise ConfigError("the drafter does not draft")
    network.bind(None)
