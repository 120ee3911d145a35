"""The shape of a Gemma 4 network, read from its config.json and checked field by field.

The field names and defaults are those of transformers' `Gemma4TextConfig`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tandem.core.errors import CheckpointError
from tandem.kv_cache.group import KvGroup
from tandem.models.gemma4.attention_config import FULL, LAYER_TYPES, SLIDING, AttentionConfig, read_attention
from tandem.models.gemma4.fields import Fields

_TEXT_DEFAULTS: dict[str, dict[str, Any]] = {  # where model types differ
    "gemma4_text": {
        "hidden_size_per_layer_input": 256,
        "max_position_embeddings": 131_072,
        "sliding_window": 512,
        "vocab_size_per_layer_input": 262_144,
    },
    "gemma4_unified_text": {
        "hidden_size_per_layer_input": 0,
        "max_position_embeddings": 262_144,
        "sliding_window": 1024,
    },
}
_MULTIMODAL_TYPES = ("gemma4", "gemma4_unified")
GROUPED_ALIGNMENT = 8  # entries: 16 bytes in bfloat16
_DEFAULT_PATTERN = 6  # without layer_types, every sixth layer is a full one


@dataclass(frozen=True)
class ExpertsConfig:
    """The mixture of experts that stands beside every layer's feed-forward."""

    num_experts: int
    top_k: int  # experts of a row
    intermediate_size: int  # of one expert


@dataclass(frozen=True)
class PerLayerInputsConfig:
    """Embeddings of the tokens that every layer takes in at its end, a table for each layer."""

    vocab_size: int
    hidden_size: int


@dataclass(frozen=True)
class Gemma4TextConfig:
    """Shape of a text decoder."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    layer_types: tuple[str, ...]
    attention: Mapping[str, AttentionConfig]  # by layer type; those that occur
    num_kv_shared_layers: int  # the last ones, which read an earlier layer's KV
    is_double_wide: bool  # those have twice the intermediate size
    experts: ExpertsConfig | None
    per_layer_inputs: PerLayerInputsConfig | None
    rms_norm_eps: float
    final_logit_softcapping: float | None
    max_position_embeddings: int
    tensor_prefix: str  # of this network's tensors in the checkpoint

    @property
    def num_hidden_layers(self) -> int:
        """Decoder layers."""
        return len(self.layer_types)

    @property
    def kv_owners(self) -> tuple[int, ...]:
        """For each layer the one whose KV it reads: itself, or the last of its type that owns any."""
        num_owning = self.num_hidden_layers - self.num_kv_shared_layers
        last_of_type = {layer_type: layer_id for layer_id, layer_type in enumerate(self.layer_types[:num_owning])}
        shared = (last_of_type[layer_type] for layer_type in self.layer_types[num_owning:])
        return (*range(num_owning), *shared)

    def intermediate_size_of(self, layer_id: int) -> int:
        """Width of one layer's feed-forward."""
        num_owning = self.num_hidden_layers - self.num_kv_shared_layers
        return self.intermediate_size * (2 if self.is_double_wide and layer_id >= num_owning else 1)

    @property
    def kv_groups(self) -> tuple[KvGroup, ...]:
        """One group for each layer type that occurs, over the layers that own KV.

        A drafter's groups list its own layers, which read the target's group of that name.
        """
        num_owning = (self.num_hidden_layers - self.num_kv_shared_layers) or self.num_hidden_layers
        return tuple(
            KvGroup(
                name=layer_type,
                layer_ids=tuple(i for i in range(num_owning) if self.layer_types[i] == layer_type),
                num_kv_heads=attention.num_kv_heads,
                head_dim=attention.head_dim,
                window=attention.window,
            )
            for layer_type, attention in self.attention.items()
        )


def read_target_config(path: Path) -> Gemma4TextConfig:
    """The text decoder that a checkpoint folder holds, alone or inside a multimodal model.

    Raises:
        CheckpointError: there is none, or it has a feature that is not served.
    """
    return target_config(read_fields(path))


def target_config(fields: Fields) -> Gemma4TextConfig:
    """The text decoder that a config.json describes. Raises as `read_target_config` does."""
    model_type = fields.text("model_type")
    if model_type in _TEXT_DEFAULTS:
        return _text_config(fields, "model.", is_drafter=False)
    if model_type in _MULTIMODAL_TYPES:
        return _text_config(fields.section("text_config"), "model.language_model.", is_drafter=False)
    served = ", ".join((*_TEXT_DEFAULTS, *_MULTIMODAL_TYPES))
    raise CheckpointError(f"{fields.source}: model_type of a target must be one of {served}, not {model_type!r}")


def drafter_text_config(fields: Fields) -> Gemma4TextConfig:
    """The decoder that a drafter's config.json describes. Raises as `read_target_config` does."""
    return _text_config(fields.section("text_config"), "model.", is_drafter=True)


def read_fields(path: Path) -> Fields:
    """The config.json of a checkpoint folder.

    Raises:
        CheckpointError: there is none, or it holds no JSON object.
    """
    file = path / "config.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: not a checkpoint folder, for there is no config.json") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: must hold a JSON object")
    return Fields(str(file), values)


def _refuse_unserved(fields: Fields, is_drafter: bool) -> None:
    """Every feature of the family that these networks lack, in one place."""
    if is_drafter:
        fields.refuse("enable_moe_block", False, "mixture of experts in a drafter")
        fields.refuse("use_double_wide_mlp", False, "double-wide feed-forward layers in a drafter")
    fields.refuse("attention_bias", False, "projections with a bias")
    fields.refuse("tie_word_embeddings", True, "a head of its own")
    fields.refuse("hidden_activation", "gelu_pytorch_tanh", "another activation")
    if fields.get("use_bidirectional_attention") == "all":
        raise CheckpointError(f"{fields.source}: use_bidirectional_attention: attention to later tokens is not served")


def _text_config(fields: Fields, tensor_prefix: str, is_drafter: bool) -> Gemma4TextConfig:
    defaults = _TEXT_DEFAULTS.get(fields.text("model_type", "gemma4_text"))
    if defaults is None:
        raise fields.error("model_type", f"must be {' or '.join(map(repr, _TEXT_DEFAULTS))}")
    fields = Fields(fields.source, {**defaults, **fields.values})
    _refuse_unserved(fields, is_drafter)
    per_layer_inputs = _per_layer_inputs_config(fields)
    if is_drafter and per_layer_inputs:
        raise fields.error("hidden_size_per_layer_input", "must be 0: a drafter has no per-layer embeddings")
    layer_types = _layer_types(fields)
    num_shared = fields.integer("num_kv_shared_layers", 0, minimum=0)
    if is_drafter and num_shared not in (0, len(layer_types)):
        raise fields.error("num_kv_shared_layers", f"must be {len(layer_types)}: a drafter has no keys of its own")
    if not is_drafter and not set(layer_types) <= set(layer_types[: len(layer_types) - num_shared]):
        raise fields.error("num_kv_shared_layers", "must leave each layer type a layer with keys")
    num_heads = fields.integer("num_attention_heads")
    attention = {
        layer_type: read_attention(fields, layer_types, layer_type, num_heads)
        for layer_type in LAYER_TYPES
        if layer_type in layer_types
    }
    return Gemma4TextConfig(
        vocab_size=fields.integer("vocab_size"),
        hidden_size=fields.integer("hidden_size"),
        intermediate_size=fields.integer("intermediate_size"),
        num_attention_heads=num_heads,
        layer_types=layer_types,
        attention=attention,
        num_kv_shared_layers=len(layer_types) if is_drafter else num_shared,
        is_double_wide=fields.boolean("use_double_wide_mlp", False),
        experts=_experts_config(fields),
        per_layer_inputs=per_layer_inputs,
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        final_logit_softcapping=fields.optional_number("final_logit_softcapping"),
        max_position_embeddings=fields.integer("max_position_embeddings"),
        tensor_prefix=tensor_prefix,
    )


def _experts_config(fields: Fields) -> ExpertsConfig | None:
    if not fields.boolean("enable_moe_block", False):
        return None
    num_experts, top_k = fields.integer("num_experts"), fields.integer("top_k_experts")
    if top_k > num_experts:
        raise fields.error("top_k_experts", f"must be at most num_experts = {num_experts}")
    for name in ("hidden_size", "moe_intermediate_size"):
        if fields.integer(name) % GROUPED_ALIGNMENT:
            raise fields.error(name, f"must be a multiple of {GROUPED_ALIGNMENT}: grouped products need aligned rows")
    return ExpertsConfig(num_experts, top_k, fields.integer("moe_intermediate_size"))


def _per_layer_inputs_config(fields: Fields) -> PerLayerInputsConfig | None:
    hidden_size = fields.integer("hidden_size_per_layer_input", minimum=0)
    if not hidden_size:
        return None
    vocab_size = fields.integer("vocab_size_per_layer_input")
    if vocab_size < fields.integer("vocab_size"):
        raise fields.error("vocab_size_per_layer_input", "must be at least vocab_size")
    return PerLayerInputsConfig(vocab_size, hidden_size)


def _layer_types(fields: Fields) -> tuple[str, ...]:
    num_layers = fields.integer("num_hidden_layers")
    layer_types = fields.get("layer_types")
    if layer_types is None:
        layer_types = [SLIDING if (layer_id + 1) % _DEFAULT_PATTERN else FULL for layer_id in range(num_layers)]
        layer_types[-1] = FULL
    if not isinstance(layer_types, list) or any(layer_type not in LAYER_TYPES for layer_type in layer_types):
        raise fields.error("layer_types", f"must list {SLIDING} or {FULL} for each layer")
    if len(layer_types) != num_layers:
        raise fields.error("layer_types", f"must have num_hidden_layers = {num_layers} entries")
    if layer_types[-1] != FULL:
        raise fields.error("layer_types", f"must end with {FULL}")
    return tuple(layer_types)
