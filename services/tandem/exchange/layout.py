"""Where everything lies in the two files of an exchange, in bytes. Any drafter can be written from this page.

Both files begin with a header of 64 bytes: magic (8 bytes), layout version (uint32), zero (uint32), generation
(uint64), size of the file (uint64). All numbers are little-endian. Every part begins at a multiple of 64.

The target file, which the verifier writes and the drafter maps read-only, holds the tensors of `target_parts` in their
order: the fields of `DraftInputs`, then the KV of each shared layer, then the embedding table.

The drafts file, which the drafter writes, holds one record a slot, each a multiple of 64 bytes long: generation
(uint64), round (uint64), count (uint32), zero (uint32), and room for K token ids (int32).
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from tandem.core.errors import ExchangeError
from tandem.exchange.spec import ExchangeSpec

LAYOUT_VERSION = 1
ALIGNMENT = 64
TARGET_MAGIC = b"TANDEM-T"
DRAFTS_MAGIC = b"TANDEM-D"
ITEM_BYTES = {"int32": 4, "int64": 8, "float64": 8, "float32": 4, "bfloat16": 2, "float8_e4m3fn": 1}

_HEADER = struct.Struct("<8sIIQQ")
_RECORD = struct.Struct("<QQII")
_TOKEN_ID_BYTES = 4
_MAX_FILE_BYTES = 1 << 42
_BOUNDS = {  # of a spec's sizes: far above any model, far below what could overflow
    "num_slots": (1, 1 << 16),
    "max_draft_tokens": (0, 1 << 10),
    "max_blocks": (1, 1 << 24),
    "block_size": (1, 1 << 16),
    "vocabulary_size": (1, 1 << 24),
    "hidden_size": (1, 1 << 20),
}
_LAYER_BOUNDS = {
    "num_blocks": (1, 1 << 30),
    "num_kv_heads": (1, 1 << 12),
    "head_dim": (1, 1 << 16),
    "key_exponent": (-64, 64),
    "value_exponent": (-64, 64),
}
_DTYPES = ("float32", "bfloat16")
_KV_DTYPES = ("", "float8_e4m3fn")
_GROUPS = ("sliding_attention", "full_attention")


@dataclass(frozen=True)
class Part:
    """One tensor of the target file."""

    name: str  # a field of `DraftInputs`; for block tables and KV with the group, as in "kv/full_attention"
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def num_bytes(self) -> int:
        """Its size."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class ExchangeLayout:
    """Offsets and sizes, derived from a spec alone. Made by `layout_of`, which checks the spec."""

    spec: ExchangeSpec
    target_parts: tuple[Part, ...]
    target_bytes: int

    @property
    def record_bytes(self) -> int:
        """Size of one slot's record in the drafts file."""
        return _aligned(_RECORD.size + self.spec.max_draft_tokens * _TOKEN_ID_BYTES)

    @property
    def drafts_bytes(self) -> int:
        """Size of the drafts file."""
        return self.record_offset(self.spec.num_slots)

    def record_offset(self, slot: int) -> int:
        """Where a slot's record begins in the drafts file."""
        return ALIGNMENT + slot * self.record_bytes


def layout_of(spec: ExchangeSpec) -> ExchangeLayout:
    """Lays out the files of an exchange.

    Raises:
        ExchangeError: a size is out of bounds, or a name unknown.
    """
    _check(spec)
    parts = []
    offset = ALIGNMENT  # of the header
    for name, dtype, shape in _tensors(spec):
        part = Part(name, dtype, shape, offset)
        parts.append(part)
        offset = _aligned(offset + part.num_bytes)
    if offset > _MAX_FILE_BYTES:
        raise ExchangeError(f"an exchange of {offset} bytes is larger than any that is served")
    return ExchangeLayout(spec, tuple(parts), offset)


def pack_header(magic: bytes, generation: int, num_bytes: int) -> bytes:
    """The first bytes of a file; the rest of the header is zero."""
    return _HEADER.pack(magic, LAYOUT_VERSION, 0, generation, num_bytes)


def check_header(header: bytes, magic: bytes, generation: int, num_bytes: int) -> None:
    """Raises ExchangeError unless a file begins with exactly this header."""
    if header[: _HEADER.size] != pack_header(magic, generation, num_bytes):
        raise ExchangeError("the file's header is not that of this attachment")


def pack_record(generation: int, round_number: int, token_ids: Sequence[int]) -> bytes:
    """A slot's record, without the room that it leaves unused."""
    return _RECORD.pack(generation, round_number, len(token_ids), 0) + struct.pack(f"<{len(token_ids)}i", *token_ids)


def unpack_record(
    data: bytes, offset: int, generation: int, round_number: int, num_tokens: int
) -> tuple[int, ...] | None:
    """The token ids of a record, any 32-bit numbers; None if it is not of that round or has another count.

    `data` must hold the whole record, and `num_tokens` be at most what it has room for.
    """
    if _RECORD.unpack_from(data, offset)[:3] != (generation, round_number, num_tokens):
        return None
    return struct.unpack_from(f"<{num_tokens}i", data, offset + _RECORD.size)


def _tensors(spec: ExchangeSpec) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    slots = (spec.num_slots,)
    yield "token_ids", "int64", slots
    yield "positions", "int64", slots
    yield "hidden", spec.dtype, (*slots, spec.hidden_size)
    for layer in spec.layers:
        yield f"block_tables/{layer.group}", "int32", (*slots, spec.max_blocks)
    yield "temperature", "float64", slots
    yield "top_k", "int64", slots
    yield "top_p", "float64", slots
    yield "min_p", "float64", slots
    yield "seeds", "int64", slots
    for layer in spec.layers:
        yield (
            f"kv/{layer.group}",
            layer.kv_dtype or spec.dtype,
            (layer.num_blocks * spec.block_size, 2, layer.num_kv_heads, layer.head_dim),
        )
    yield "embedding", spec.dtype, (spec.vocabulary_size, spec.hidden_size)


def _check(spec: ExchangeSpec) -> None:
    _check_bounds(spec, _BOUNDS)
    if spec.dtype not in _DTYPES:
        raise ExchangeError(f"dtype must be one of {', '.join(_DTYPES)}")
    groups = [layer.group for layer in spec.layers]
    if not groups or len(set(groups)) != len(groups) or not set(groups) <= set(_GROUPS):
        raise ExchangeError(f"layers must be of different groups among {', '.join(_GROUPS)}")
    for layer in spec.layers:
        if layer.kv_dtype not in _KV_DTYPES:
            raise ExchangeError(f"kv_dtype must be {_KV_DTYPES[-1]} or empty")
        _check_bounds(layer, _LAYER_BOUNDS)


def _check_bounds(sizes: object, bounds: dict[str, tuple[int, int]]) -> None:
    for name, (low, high) in bounds.items():
        value = getattr(sizes, name)
        if type(value) is not int or not low <= value <= high:
            raise ExchangeError(f"{name} must be between {low} and {high}")


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT
