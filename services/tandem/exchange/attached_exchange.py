"""The drafter's side of an exchange in files."""

import os
from collections.abc import Mapping, Sequence

from tandem.core.errors import ExchangeError
from tandem.exchange.draft_inputs import DraftInputs, mapped_inputs
from tandem.exchange.layout import ALIGNMENT, DRAFTS_MAGIC, TARGET_MAGIC, check_header, layout_of, pack_record
from tandem.exchange.memory_file import map_bytes, open_existing
from tandem.exchange.spec import ExchangeSpec


class AttachedExchange:
    """Maps what a verifier shares, read-only, and writes drafts. The memory is let go of with the last reference."""

    def __init__(self, spec: ExchangeSpec, generation: int, target_path: str, drafts_path: str) -> None:
        """Opens both files.

        Raises:
            ExchangeError: the sizes are out of bounds, or a file is not what they say.
        """
        self._layout = layout_of(spec)
        self._generation = generation
        target = open_existing(target_path, self._layout.target_bytes, is_writable=False)
        try:
            check_header(os.pread(target, ALIGNMENT, 0), TARGET_MAGIC, generation, self._layout.target_bytes)
            data = map_bytes(target, self._layout.target_bytes, is_writable=False)
        finally:
            os.close(target)
        self.inputs: DraftInputs = mapped_inputs(self._layout, data)
        self._drafts = open_existing(drafts_path, self._layout.drafts_bytes, is_writable=True)
        try:
            check_header(os.pread(self._drafts, ALIGNMENT, 0), DRAFTS_MAGIC, generation, self._layout.drafts_bytes)
        except ExchangeError:
            os.close(self._drafts)
            raise
        # What the file holds; one write a round then covers all slots of the round and those between.
        self._records = bytearray(self._layout.drafts_bytes)

    def write_drafts(self, round_number: int, drafts: Mapping[int, Sequence[int]]) -> None:
        """Writes the drafts of a round, by slot. Slots must exist and the tokens have room."""
        layout, records = self._layout, self._records
        assert all(0 <= slot < layout.spec.num_slots for slot in drafts)
        for slot, token_ids in drafts.items():
            assert len(token_ids) <= layout.spec.max_draft_tokens
            record = pack_record(self._generation, round_number, token_ids)
            offset = layout.record_offset(slot)
            records[offset : offset + len(record)] = record
        if drafts:
            start, end = layout.record_offset(min(drafts)), layout.record_offset(max(drafts) + 1)
            os.pwrite(self._drafts, memoryview(records)[start:end], start)

    def close(self) -> None:
        """Closes the drafts file; the mapping goes with `inputs`."""
        os.close(self._drafts)
