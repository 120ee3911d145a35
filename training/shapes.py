"""Shapes of the demo pair and the configuration files that Hugging Face's loaders read."""

from dataclasses import dataclass
from typing import Any

_ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
}


@dataclass(frozen=True)
class Shape:
    """Shape of a dense, text-only Gemma 4 network; lengths and the window are in tokens."""

    hidden: int
    layers: int
    intermediate: int
    full_every: int  # one full layer closes each group of so many layers
    softcap: float | None
    vocabulary: int = 4096
    heads: int = 6
    kv_heads: int = 3
    global_kv_heads: int = 1
    head_size: int = 32
    global_head_size: int = 64
    window: int = 128
    context: int = 4096

    def is_full(self, layer: int) -> bool:
        """Whether layer `layer` (from 0) attends to everything before it."""
        return (layer + 1) % self.full_every == 0

    def text_config(self) -> dict[str, Any]:
        """The network's `gemma4_text` configuration."""
        kinds = ["full_attention" if self.is_full(layer) else "sliding_attention" for layer in range(self.layers)]
        return {
            "model_type": "gemma4_text",
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "num_global_key_value_heads": self.global_kv_heads,
            "head_dim": self.head_size,
            "global_head_dim": self.global_head_size,
            "hidden_activation": "gelu_pytorch_tanh",
            "max_position_embeddings": self.context,
            "initializer_range": 0.02,
            "rms_norm_eps": 1e-6,
            "use_cache": True,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 2,
            "tie_word_embeddings": True,
            "rope_parameters": _ROPE,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "sliding_window": self.window,
            "layer_types": kinds,
            "final_logit_softcapping": self.softcap,
            "use_bidirectional_attention": None,
            "vocab_size_per_layer_input": 0,
            "hidden_size_per_layer_input": 0,
            "attention_k_eq_v": True,
            "num_kv_shared_layers": 0,
            "enable_moe_block": False,
            "use_double_wide_mlp": False,
            "num_experts": None,
            "top_k_experts": None,
            "moe_intermediate_size": None,
            "dtype": "bfloat16",
        }


TARGET = Shape(hidden=160, layers=30, intermediate=576, full_every=6, softcap=30.0)
DRAFTER = Shape(hidden=128, layers=4, intermediate=512, full_every=4, softcap=None)
DRAFTS = 4  # draft tokens a round that the drafter recommends, and that the card's figures use


def target_config() -> dict[str, Any]:
    """The target's config.json."""
    return {"architectures": ["Gemma4ForCausalLM"], **TARGET.text_config()}


def drafter_config() -> dict[str, Any]:
    """The drafter's config.json: every layer reads the target's keys and values."""
    return {
        "architectures": ["Gemma4AssistantForCausalLM"],
        "model_type": "gemma4_assistant",
        "backbone_hidden_size": TARGET.hidden,
        "use_ordered_embeddings": False,
        "num_centroids": 2048,
        "centroid_intermediate_top_k": 32,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
        "text_config": {**DRAFTER.text_config(), "num_kv_shared_layers": DRAFTER.layers},
    }
