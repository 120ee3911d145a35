"""Layers whose keys and values have one shape and one lifetime."""

from dataclasses import dataclass


@dataclass(frozen=True)
class KvGroup:
    """Layers that share a block table: same heads, same head size, same window.

    `layer_ids` are the layers that own KV; a layer that reads another's has none. A sliding group forgets keys that
    are `window` or more positions behind the query; a full one (`window` None) never does.
    """

    name: str  # "sliding_attention" or "full_attention"
    layer_ids: tuple[int, ...]
    num_kv_heads: int
    head_dim: int
    window: int | None

    def __post_init__(self) -> None:
        """A group without layers, heads or reach is a defect of ours."""
        assert self.layer_ids and len(set(self.layer_ids)) == len(self.layer_ids)
        assert self.num_kv_heads > 0 and self.head_dim > 0
        assert self.window is None or self.window > 0

    @property
    def slot_shape(self) -> tuple[int, int, int]:
        """Shape of one token's entry in one layer: keys at index 0, values at 1."""
        return (2, self.num_kv_heads, self.head_dim)
