"""The sizes from which both sides derive everything that they share."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SharedLayer:
    """The KV of one target layer that the drafter reads."""

    group: str  # "sliding_attention" or "full_attention"
    num_blocks: int
    num_kv_heads: int
    head_dim: int
    kv_dtype: str = ""  # "float8_e4m3fn"; empty: the exchange's dtype
    key_exponent: int = 0  # stored keys times 2^this are the keys
    value_exponent: int = 0  # likewise


@dataclass(frozen=True)
class ExchangeSpec:
    """Sizes of one exchange."""

    dtype: str  # of hidden rows, embedding table, and KV that does not say another: "float32" or "bfloat16"
    num_slots: int  # sequences that can be drafted for at a time
    max_draft_tokens: int  # draft tokens a slot has room for
    max_blocks: int  # entries of one row of a block table
    block_size: int  # tokens a KV block
    vocabulary_size: int
    hidden_size: int
    layers: tuple[SharedLayer, ...]
