"""The verifier's side of an exchange on a GPU."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from tandem.exchange.cuda_layout import FLAGS_MAGIC, CudaLayout, cuda_layout_of
from tandem.exchange.device_memory import allocate, device_uuid
from tandem.exchange.draft_inputs import DraftInputs, mapped_inputs, mapped_part
from tandem.exchange.layout import pack_header
from tandem.exchange.memory_file import create, sweep
from tandem.exchange.round_flags import FLAGS_BYTES, Flag, RoundFlags
from tandem.exchange.spec import ExchangeSpec

READ_SECONDS = 1.0  # longest wait of a host for the drafts of a round
_POLL_SECONDS = 50e-6


class CudaExchange:
    """Owns the GPU memory and the flags. A drafter that has opened them can write all of both, and is trusted not to.

    Rounds are numbered upwards for as long as the exchange lives, whoever is attached. The stream that computes a
    round's inputs is the current one of whoever calls `post` and `wait`.
    """

    def __init__(self, spec: ExchangeSpec, device: torch.device, directory: str | Path) -> None:
        """Takes the memory.

        Args:
            spec: the sizes.
            device: a GPU.
            directory: a memory-backed directory that verifier and drafter both see, for the flags.

        Raises:
            ExchangeError: the sizes are out of bounds, or there is no room for them.
        """
        self.layout: CudaLayout = cuda_layout_of(spec)
        sweep(Path(directory))
        memory = allocate(self.layout.num_bytes, device)
        self.handle, self.device_uuid = memory.handle, device_uuid(device)
        data = memory.as_tensor(device)  # every tensor below keeps the memory alive
        self.inputs: DraftInputs = mapped_inputs(self.layout.target, data)
        self.inputs.clear()
        self.drafts = mapped_part(self.layout.drafts, data)  # [num_slots, max_draft_tokens] int64
        torch.cuda.synchronize(device)
        self.flags_path, self._file = create(Path(directory).absolute(), "flags", FLAGS_BYTES)
        try:
            self._flags = RoundFlags(self._file)
        except BaseException:
            self.flags_path.unlink()
            os.close(self._file)
            raise
        self._newest = 0  # round that a stream waits for

    @property
    def spec(self) -> ExchangeSpec:
        """The sizes."""
        return self.layout.target.spec

    def respecify(self, spec: ExchangeSpec) -> None:
        """Describes the same memory with other exponents, which are known only when the weights are."""
        layout = cuda_layout_of(spec)
        assert layout.target.target_parts == self.layout.target.target_parts
        self.layout, self.inputs = layout, replace(self.inputs, spec=spec)

    def renew(self, generation: int) -> None:
        """Prepares for an attachment."""
        os.pwrite(self._file, pack_header(FLAGS_MAGIC, generation, self.layout.num_bytes), 0)

    def post(self, round_number: int) -> None:
        """On the current stream: the inputs of a round are all written."""
        self._flags.write(Flag.INPUTS, round_number)

    def wait(self, round_number: int) -> None:
        """On the current stream: what follows may read `drafts` of a round.

        After a `release` they may be anything, and a drafter that was late may be writing them at that very moment.
        """
        self._newest = round_number
        self._flags.wait(Flag.DRAFTS, round_number)
        self._flags.write(Flag.TAKEN, round_number)

    def has_passed(self, round_number: int) -> bool:
        """Whether the stream has come through the `wait` for a round. Any thread may ask."""
        return self._flags.has_reached(Flag.TAKEN, round_number)

    def release(self, round_number: int) -> None:
        """Ends the `wait` for a round and those before it, drafts or no drafts. Any thread may call it."""
        if not self._flags.has_reached(Flag.DRAFTS, round_number):
            self._flags.store(Flag.DRAFTS, round_number)

    def read_drafts(
        self, round_number: int, slots: Sequence[int], counts: Sequence[int]
    ) -> list[tuple[int, ...]] | None:
        """The drafts of a round, on the host, which waits for them; None if they do not come.

        Args:
            round_number: of the round.
            slots: that drafts were asked for.
            counts: tokens that each of them is said to have, none above `max_draft_tokens`.
        """
        deadline = time.monotonic() + READ_SECONDS
        while not self._flags.has_reached(Flag.DRAFTS, round_number):
            if time.monotonic() > deadline:
                return None
            time.sleep(_POLL_SECONDS)
        rows = self.drafts[torch.tensor(slots, dtype=torch.int64, device=self.drafts.device)].tolist()
        return [tuple(row[:count]) for row, count in zip(rows, counts, strict=True)]

    def close(self) -> None:
        """Ends every wait, and removes the flags. The memory goes with the last tensor over it."""
        self.release(self._newest)
        torch.cuda.synchronize(self.drafts.device)
        self._flags.close()
        self.flags_path.unlink(missing_ok=True)
        os.close(self._file)
