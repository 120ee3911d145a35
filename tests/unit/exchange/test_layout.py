"""Offsets and sizes: exact, disjoint, aligned, and bounded before anybody allocates."""

import struct
from typing import Any

import pytest

from tandem.core.errors import ExchangeError
from tandem.exchange.layout import (
    DRAFTS_MAGIC,
    LAYOUT_VERSION,
    TARGET_MAGIC,
    check_header,
    layout_of,
    pack_header,
    pack_record,
    unpack_record,
)
from tests.unit.exchange.specs import SPEC, spec_with


def test_the_offsets_are_those_of_version_1() -> None:
    """Written out: a drafter in another language counts on them, so that a change needs a new LAYOUT_VERSION."""
    layout = layout_of(SPEC)
    assert LAYOUT_VERSION == 1
    assert [(part.name, part.dtype, part.shape, part.offset) for part in layout.target_parts] == [
        ("token_ids", "int64", (3,), 64),
        ("positions", "int64", (3,), 128),
        ("hidden", "float32", (3, 6), 192),
        ("block_tables/sliding_attention", "int32", (3, 7), 320),
        ("block_tables/full_attention", "int32", (3, 7), 448),
        ("temperature", "float64", (3,), 576),
        ("top_k", "int64", (3,), 640),
        ("top_p", "float64", (3,), 704),
        ("min_p", "float64", (3,), 768),
        ("seeds", "int64", (3,), 832),
        ("kv/sliding_attention", "float32", (36, 2, 3, 2), 896),
        ("kv/full_attention", "float32", (52, 2, 1, 10), 2624),
        ("embedding", "float32", (11, 6), 6784),
    ]
    assert layout.target_bytes == 7104
    assert (layout.record_bytes, layout.record_offset(2), layout.drafts_bytes) == (64, 192, 256)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parts_are_aligned_and_do_not_overlap(dtype: str) -> None:
    layout = layout_of(spec_with(dtype=dtype, num_slots=17, hidden_size=161))
    end = 64
    for part in layout.target_parts:
        assert part.offset % 64 == 0 and end <= part.offset < end + 64
        end = part.offset + part.num_bytes
    assert end <= layout.target_bytes < end + 64


def test_kv_of_8_bits_takes_a_quarter_of_float32() -> None:
    """Of the layer that says so; exponents take no room."""
    parts = {part.name: part for part in layout_of(spec_with(kv_dtype="float8_e4m3fn", key_exponent=-3)).target_parts}
    assert parts["kv/sliding_attention"].dtype == "float32"
    part = parts["kv/full_attention"]
    assert (part.dtype, part.shape, part.num_bytes) == ("float8_e4m3fn", (52, 2, 1, 10), 1040)
    assert parts["embedding"].offset == part.offset + 1040 + -1040 % 64


@pytest.mark.parametrize(("max_draft_tokens", "record_bytes"), [(0, 64), (10, 64), (11, 128), (26, 128), (27, 192)])
def test_a_record_has_room_for_all_drafts(max_draft_tokens: int, record_bytes: int) -> None:
    layout = layout_of(spec_with(max_draft_tokens=max_draft_tokens))
    assert len(pack_record(1, 2, [7] * max_draft_tokens)) <= layout.record_bytes == record_bytes


@pytest.mark.parametrize(
    "sizes",
    [
        *[{name: 0} for name in ("num_slots", "max_blocks", "block_size", "vocabulary_size", "hidden_size")],
        *[{name: 0} for name in ("num_blocks", "num_kv_heads", "head_dim")],
        *[{name: -1} for name in ("num_slots", "max_draft_tokens", "block_size", "num_blocks")],
        *[{name: 2**32 - 1} for name in ("num_slots", "max_draft_tokens", "max_blocks", "hidden_size", "head_dim")],
        {"vocabulary_size": 2**64},
        {"num_slots": True},
        {"num_slots": 3.0},
        {"dtype": "float16"},
        {"dtype": ""},
        {"layers": ()},
        {"layers": SPEC.layers[:1] * 2},
        {"group": "chunked_attention"},
        {"kv_dtype": "float8_e5m2"},
        {"kv_dtype": "float32"},
        *[{name: exponent} for name in ("key_exponent", "value_exponent") for exponent in (-65, 65, 0.0)],
        # Each size may pass, but not all of them together.
        {"num_blocks": 1 << 30, "num_kv_heads": 1 << 12, "head_dim": 1 << 16, "block_size": 1 << 16},
        {"vocabulary_size": 1 << 24, "hidden_size": 1 << 20},
    ],
    ids=str,
)
def test_absurd_sizes_are_refused(sizes: dict[str, Any]) -> None:
    with pytest.raises(ExchangeError):
        layout_of(spec_with(**sizes))


def test_a_real_pair_is_within_bounds() -> None:
    """31B in bfloat16 at 262,144 tokens of context and 64 sequences."""
    spec = spec_with(
        dtype="bfloat16",
        num_slots=64,
        max_blocks=16384,
        block_size=16,
        vocabulary_size=262_144,
        hidden_size=5376,
        num_blocks=65536,
        num_kv_heads=4,
        head_dim=512,
    )
    assert layout_of(spec).target_bytes > 2 * 262_144 * 5376


def test_a_header_is_checked_to_the_bit() -> None:
    header = pack_header(TARGET_MAGIC, 2**64 - 1, 7104)
    assert header == b"TANDEM-T" + struct.pack("<IIQQ", 1, 0, 2**64 - 1, 7104)
    check_header(header + bytes(32), TARGET_MAGIC, 2**64 - 1, 7104)
    for wrong in [
        pack_header(DRAFTS_MAGIC, 2**64 - 1, 7104),
        pack_header(TARGET_MAGIC, 2**64 - 2, 7104),
        pack_header(TARGET_MAGIC, 2**64 - 1, 7168),
        header[:8] + b"\2" + header[9:],
        header[:-1],
        b"",
    ]:
        with pytest.raises(ExchangeError):
            check_header(wrong, TARGET_MAGIC, 2**64 - 1, 7104)


def test_a_record_is_of_one_round() -> None:
    data = bytes(64) + pack_record(9, 4, [5, -1, 2**31 - 1]) + bytes(64)
    assert unpack_record(data, 64, 9, 4, 3) == (5, -1, 2**31 - 1)
    assert unpack_record(data, 64, 8, 4, 3) is None
    assert unpack_record(data, 64, 9, 5, 3) is None
    assert unpack_record(data, 64, 9, 4, 2) is None
    assert unpack_record(data, 0, 9, 4, 3) is None
