"""The verifier's side of an exchange in files."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tandem.exchange.draft_inputs import DraftInputs, mapped_inputs
from tandem.exchange.layout import (
    DRAFTS_MAGIC,
    TARGET_MAGIC,
    ExchangeLayout,
    layout_of,
    pack_header,
    unpack_record,
)
from tandem.exchange.memory_file import create, map_bytes, sweep
from tandem.exchange.spec import ExchangeSpec


class SharedExchange:
    """Owns both files. `inputs` are to be written, the embedding table and the KV tensors among them.

    The drafts file is read through its descriptor and never mapped: a drafter that cuts it off costs drafts, while a
    mapping would cost the process.
    """

    def __init__(self, spec: ExchangeSpec, directory: str | Path) -> None:
        """Makes the files, and sweeps away those of dead verifiers.

        Args:
            spec: the sizes.
            directory: a memory-backed directory that verifier and drafter both see.

        Raises:
            ExchangeError: the sizes are out of bounds, or the directory has no room for them.
        """
        self.layout: ExchangeLayout = layout_of(spec)
        sweep(Path(directory))
        self.target_path, self._target = create(Path(directory).absolute(), "target", self.layout.target_bytes)
        try:
            self.drafts_path, self._drafts = create(Path(directory).absolute(), "drafts", self.layout.drafts_bytes)
        except Exception:
            self.target_path.unlink()
            os.close(self._target)
            raise
        os.fchmod(self._target, 0o400)  # this process has it open for writing already
        self.inputs: DraftInputs = mapped_inputs(
            self.layout, map_bytes(self._target, self.layout.target_bytes, is_writable=True)
        )
        self.inputs.clear()

    @property
    def spec(self) -> ExchangeSpec:
        """The sizes."""
        return self.layout.spec

    def respecify(self, spec: ExchangeSpec) -> None:
        """Describes the same memory with other exponents, which are known only when the weights are."""
        layout = layout_of(spec)
        assert layout.target_parts == self.layout.target_parts and layout.drafts_bytes == self.layout.drafts_bytes
        self.layout, self.inputs = layout, replace(self.inputs, spec=spec)

    def renew(self, generation: int) -> None:
        """Prepares for an attachment: whatever a former drafter did to the drafts file is undone."""
        os.pwrite(self._target, pack_header(TARGET_MAGIC, generation, self.layout.target_bytes), 0)
        os.ftruncate(self._drafts, 0)
        os.ftruncate(self._drafts, self.layout.drafts_bytes)
        os.pwrite(self._drafts, pack_header(DRAFTS_MAGIC, generation, self.layout.drafts_bytes), 0)

    def read_drafts(
        self, generation: int, round_number: int, slots: Sequence[int], counts: Sequence[int]
    ) -> list[tuple[int, ...]] | None:
        """The drafts of a round; None if the file does not hold just these counts of that round.

        Args:
            generation: of the attachment.
            round_number: of the round.
            slots: that drafts were asked for.
            counts: tokens that each of them is said to have.
        """
        layout = self.layout
        if any(count > layout.spec.max_draft_tokens for count in counts):
            return None
        first = layout.record_offset(min(slots, default=0))
        num_bytes = layout.record_offset(max(slots, default=0) + 1) - first
        data = os.pread(self._drafts, num_bytes, first)
        if len(data) < num_bytes:
            return None
        drafts = []
        for slot, count in zip(slots, counts, strict=True):
            token_ids: tuple[int, ...] | None = ()
            if count:
                offset = layout.record_offset(slot) - first
                token_ids = unpack_record(data, offset, generation, round_number, count)
            if token_ids is None:
                return None
            drafts.append(token_ids)
        return drafts

    def close(self) -> None:
        """Removes the files. What is mapped lives on until the last tensor over it is gone."""
        for path, descriptor in ((self.target_path, self._target), (self.drafts_path, self._drafts)):
            path.unlink(missing_ok=True)
            os.close(descriptor)
