"""Sizes for tests: every part's length is odd, so that alignment has something to do."""

from dataclasses import replace
from typing import Any

from tandem.exchange.spec import ExchangeSpec, SharedLayer

SPEC = ExchangeSpec(
    dtype="float32",
    num_slots=3,
    max_draft_tokens=5,
    max_blocks=7,
    block_size=4,
    vocabulary_size=11,
    hidden_size=6,
    layers=(SharedLayer("sliding_attention", 9, 3, 2), SharedLayer("full_attention", 13, 1, 10)),
)


OF_LAYER = ("group", "num_blocks", "num_kv_heads", "head_dim", "kv_dtype", "key_exponent", "value_exponent")


def spec_with(**sizes: Any) -> ExchangeSpec:
    """SPEC with other sizes; those of a layer change the last one."""
    own = {name: value for name, value in sizes.items() if name in OF_LAYER}
    layers = (*SPEC.layers[:-1], replace(SPEC.layers[-1], **own))
    return replace(SPEC, **{"layers": layers, **{name: value for name, value in sizes.items() if name not in own}})
