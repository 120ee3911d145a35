"""The sizes from which both sides derive everything that they share."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SharedLayer:
    """The KV of one target layer that the drafter reads."""

    group: str  # "sliding_attention" or "full_attention"
    num_blocks: int
    num_kv_heads: int
    head_dim: int


@dataclass(frozen=True)
class ExchangeSpec:
    """Sizes of one exchange."""

    dtype: str  # of hidden rows, KV and embedding table: "float32" or "bfloat16"
    num_slots: int  # sequences that can be drafted for at a time
    max_draft_tokens: int  # draft tokens a slot has room for
    max_blocks: int  # entries of one row of a block table
    block_size: int  # tokens a KV block
    vocabulary_size: int
    hidden_size: int
    layers: tuple[SharedLayer, ...]
