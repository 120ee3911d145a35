"""The drafter's side of an exchange on a GPU."""

import os

import torch

from tandem.core.errors import ExchangeError
from tandem.exchange.cuda_layout import FLAGS_MAGIC, HANDLE_BYTES, cuda_layout_of
from tandem.exchange.device_memory import open_memory
from tandem.exchange.draft_inputs import DraftInputs, mapped_inputs, mapped_part
from tandem.exchange.layout import ALIGNMENT, check_header
from tandem.exchange.memory_file import open_existing
from tandem.exchange.offer import CudaOffer
from tandem.exchange.round_flags import FLAGS_BYTES, Flag, RoundFlags


class AttachedCudaExchange:
    """Opens what a verifier shares. It could write there, but writes nothing except drafts and their flag."""

    def __init__(self, offer: CudaOffer, device: torch.device) -> None:
        """Opens memory and flags.

        Args:
            offer: the verifier's words.
            device: the GPU that drafts.

        Raises:
            ExchangeError: the sizes are out of bounds, or what they are said of cannot be opened or is something else.
        """
        layout = cuda_layout_of(offer.spec)
        if len(offer.handle) != HANDLE_BYTES:
            raise ExchangeError(f"a handle has {HANDLE_BYTES} bytes")
        file = open_existing(offer.flags_path, FLAGS_BYTES, is_writable=True)
        try:
            check_header(os.pread(file, ALIGNMENT, 0), FLAGS_MAGIC, offer.generation, layout.num_bytes)
            self._memory = open_memory(offer.handle, layout.num_bytes, offer.device_uuid, device)
            self._flags = RoundFlags(file)
        finally:
            os.close(file)
        data = self._memory.as_tensor(device)
        self.inputs: DraftInputs = mapped_inputs(layout.target, data)
        self.drafts = mapped_part(layout.drafts, data)  # [num_slots, max_draft_tokens] int64
        self._newest = 0

    def begin(self, round_number: int) -> None:
        """On the current stream: what follows may read the inputs of a round."""
        self._newest = round_number
        self._flags.wait(Flag.INPUTS, round_number)

    def end(self, round_number: int) -> None:
        """On the current stream: the drafts of a round are all written."""
        self._flags.write(Flag.DRAFTS, round_number)

    def release(self) -> None:
        """Ends all waiting for inputs: the verifier that would write them is gone. Any thread may call it."""
        if not self._flags.has_reached(Flag.INPUTS, self._newest):
            self._flags.store(Flag.INPUTS, self._newest)

    def close(self) -> None:
        """Lets go of the flags; no stream may wait for them any more. The memory goes with this object and `inputs`."""
        self._flags.close()
