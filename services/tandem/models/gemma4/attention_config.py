"""Attention of one layer type, read from a config.json.

Full layers differ from sliding ones in head size and KV heads, which checkpoints say in one of two ways:
`global_head_dim` and `num_global_key_value_heads`, or, since transformers 5.17 writes them, one entry of
`per_layer_config` for each.
"""

from dataclasses import dataclass
from typing import Any

from tandem.models.gemma4.fields import Fields

SLIDING = "sliding_attention"
FULL = "full_attention"
LAYER_TYPES = (SLIDING, FULL)

_DEFAULT_ROPE: dict[str, dict[str, Any]] = {
    SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
    FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
}


@dataclass(frozen=True)
class AttentionConfig:
    """Attention of all layers of one type."""

    num_kv_heads: int
    head_dim: int
    window: int | None  # None: everything before the query
    is_k_eq_v: bool  # values are the keys' projection, normed but not rotated
    rope_theta: float
    num_rope_angles: int  # rotated pairs of a head, at most head_dim // 2; the others stay as they are


def read_attention(fields: Fields, layer_types: tuple[str, ...], layer_type: str, num_heads: int) -> AttentionConfig:
    """The attention of one layer type.

    Args:
        fields: of the text decoder.
        layer_types: of its layers.
        layer_type: one of them.
        num_heads: query heads.

    Raises:
        CheckpointError: a field is not what it must be.
    """
    shape = _kv_shape(fields, layer_types, layer_type)
    num_kv_heads, head_dim = shape.integer("num_key_value_heads"), shape.integer("head_dim")
    if num_heads % num_kv_heads:
        raise shape.error("num_key_value_heads", f"must divide num_attention_heads = {num_heads}")
    if head_dim % 2:
        raise shape.error("head_dim", "must be even: rotary positions turn pairs")
    rope = Fields(fields.source, fields.get("rope_parameters") or _DEFAULT_ROPE).section(layer_type)
    rope_type = rope.text("rope_type", "default")
    if rope_type not in ("default", "proportional"):
        raise rope.error("rope_type", "must be 'default' or 'proportional'")
    if rope.get("factor", 1.0) != 1.0:
        raise rope.error("factor", "must be 1: stretched positions are not served")
    fraction = rope.number("partial_rotary_factor", 1.0) if rope_type == "proportional" else 1.0
    if fraction > 1.0:
        raise rope.error("partial_rotary_factor", "must be at most 1")
    return AttentionConfig(
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        window=fields.integer("sliding_window") if layer_type == SLIDING else None,
        is_k_eq_v=layer_type == FULL and fields.boolean("attention_k_eq_v", False),
        rope_theta=rope.number("rope_theta"),
        num_rope_angles=int(fraction * head_dim // 2),
    )


def _kv_shape(fields: Fields, layer_types: tuple[str, ...], layer_type: str) -> Fields:
    """`num_key_value_heads` and `head_dim` of one layer type, whichever way the checkpoint says them."""
    shape = {name: fields.get(name) for name in ("num_key_value_heads", "head_dim")}
    if fields.get("per_layer_config") is None:
        if layer_type == FULL:
            shape["head_dim"] = fields.get("global_head_dim", 512)
            num_global = fields.get("num_global_key_value_heads")
            if num_global is not None and fields.get("attention_k_eq_v"):
                shape["num_key_value_heads"] = num_global
        return Fields(fields.source, shape)
    overrides = fields.section("per_layer_config")
    by_layer = {int(key): overrides.section(key) for key in overrides.names() if key.isdecimal()}
    if len(by_layer) != len(overrides.names()):
        raise fields.error("per_layer_config", "must be keyed by layer number")
    wanted = [i for i, name in enumerate(layer_types) if name == layer_type]
    shapes = [{**shape, **(by_layer[i].values if i in by_layer else {})} for i in wanted]
    if any(set(one) != set(shape) or one != shapes[0] for one in shapes):
        raise fields.error("per_layer_config", f"may give num_key_value_heads and head_dim, alike for all {layer_type}")
    return Fields(fields.source, shapes[0])
