"""The five targets and their drafters at full size, as their checkpoints' config.json describes them.

For shapes and random weights where no checkpoint is at hand. Both tables go by the target's name.
"""

from typing import Any

from tandem.models.gemma4.attention_config import FULL, SLIDING
from tandem.models.gemma4.config import Gemma4TextConfig, target_config
from tandem.models.gemma4.fields import Fields

_TEXT: dict[str, Any] = {
    "attention_bias": False,
    "final_logit_softcapping": 30.0,
    "global_head_dim": 512,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 262_144,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {
        SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
        FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
    },
    "sliding_window": 1024,
    "tie_word_embeddings": True,
    "vocab_size": 262_144,
}
_LARGE = {
    "model_type": "gemma4_text",
    "attention_k_eq_v": True,
    "enable_moe_block": False,
    "hidden_size_per_layer_input": 0,
    "num_kv_shared_layers": 0,
    "use_bidirectional_attention": "vision",
    "use_double_wide_mlp": False,
}
_SMALL = {
    "model_type": "gemma4_text",
    "attention_k_eq_v": False,
    "enable_moe_block": False,
    "hidden_size_per_layer_input": 256,
    "max_position_embeddings": 131_072,
    "num_attention_heads": 8,
    "num_global_key_value_heads": None,
    "sliding_window": 512,
    "use_bidirectional_attention": None,
    "vocab_size_per_layer_input": 262_144,
}


def _layers(num_sliding: int, num_repeats: int) -> dict[str, Any]:
    """So many sliding layers and then a full one, so many times."""
    layer_types = ([SLIDING] * num_sliding + [FULL]) * num_repeats
    return {"layer_types": layer_types, "num_hidden_layers": len(layer_types)}


_TARGET_TEXTS: dict[str, dict[str, Any]] = {
    "gemma-4-31b": {
        **_TEXT,
        **_LARGE,
        **_layers(5, 10),
        "hidden_size": 5376,
        "intermediate_size": 21_504,
        "num_attention_heads": 32,
        "num_global_key_value_heads": 4,
        "num_key_value_heads": 16,
    },
    "gemma-4-26b-a4b": {
        **_TEXT,
        **_LARGE,
        **_layers(5, 5),
        "enable_moe_block": True,
        "hidden_size": 2816,
        "intermediate_size": 2112,
        "moe_intermediate_size": 704,
        "num_attention_heads": 16,
        "num_experts": 128,
        "num_global_key_value_heads": 2,
        "num_key_value_heads": 8,
        "top_k_experts": 8,
    },
    "gemma-4-12b": {
        **_TEXT,
        **_layers(5, 8),
        "model_type": "gemma4_unified_text",
        "attention_k_eq_v": True,
        "hidden_size": 3840,
        "intermediate_size": 15_360,
        "num_attention_heads": 16,
        "num_global_key_value_heads": 1,
        "num_key_value_heads": 8,
        "num_kv_shared_layers": 0,
        "use_bidirectional_attention": "vision",
        "use_double_wide_mlp": False,
    },
    "gemma-4-e4b": {
        **_TEXT,
        **_SMALL,
        **_layers(5, 7),
        "hidden_size": 2560,
        "intermediate_size": 10_240,
        "num_key_value_heads": 2,
        "num_kv_shared_layers": 18,
        "use_double_wide_mlp": False,
    },
    "gemma-4-e2b": {
        **_TEXT,
        **_SMALL,
        **_layers(4, 7),
        "hidden_size": 1536,
        "intermediate_size": 6144,
        "num_key_value_heads": 1,
        "num_kv_shared_layers": 20,
        "use_double_wide_mlp": True,
    },
}


def _target(text: dict[str, Any]) -> dict[str, Any]:
    """The language model inside its multimodal wrapper, whose other parts are not served."""
    is_unified = text["model_type"] == "gemma4_unified_text"
    return {
        "architectures": ["Gemma4UnifiedForConditionalGeneration" if is_unified else "Gemma4ForConditionalGeneration"],
        "model_type": "gemma4_unified" if is_unified else "gemma4",
        "tie_word_embeddings": True,
        "text_config": text,
    }


def _drafter(target: dict[str, Any], num_attention_heads: int) -> dict[str, Any]:
    """Four layers over the target's keys and values; the drafters of the small targets have a head over centroids."""
    is_unified = target["model_type"] == "gemma4_unified_text"
    is_small = not target["attention_k_eq_v"]
    text = {
        **target,
        **_layers(3, 1),
        "final_logit_softcapping": None,
        "hidden_size": 256 if is_small else 1024,
        "intermediate_size": 2048 if is_small else 8192,
        "num_attention_heads": num_attention_heads,
        "num_kv_shared_layers": 4,
        "use_double_wide_mlp": False,
    }
    if not is_unified:
        text |= {"enable_moe_block": False, "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}
    return {
        "architectures": ["Gemma4UnifiedAssistantForCausalLM" if is_unified else "Gemma4AssistantForCausalLM"],
        "model_type": "gemma4_unified_assistant" if is_unified else "gemma4_assistant",
        "backbone_hidden_size": target["hidden_size"],
        "centroid_intermediate_top_k": 32,
        "num_centroids": 2048,
        "tie_word_embeddings": True,
        "use_ordered_embeddings": is_small,
        "text_config": text,
    }


TARGETS: dict[str, dict[str, Any]] = {name: _target(text) for name, text in _TARGET_TEXTS.items()}
DRAFTERS: dict[str, dict[str, Any]] = {
    "gemma-4-31b": _drafter(_TARGET_TEXTS["gemma-4-31b"], num_attention_heads=32),
    "gemma-4-26b-a4b": _drafter(_TARGET_TEXTS["gemma-4-26b-a4b"], num_attention_heads=16),
    "gemma-4-12b": _drafter(_TARGET_TEXTS["gemma-4-12b"], num_attention_heads=16),
    "gemma-4-e4b": _drafter(_TARGET_TEXTS["gemma-4-e4b"], num_attention_heads=4),
    "gemma-4-e2b": _drafter(_TARGET_TEXTS["gemma-4-e2b"], num_attention_heads=4),
}


def target_preset(name: str) -> Gemma4TextConfig:
    """The shape of one of `TARGETS`."""
    return target_config(Fields(f"preset {name}", TARGETS[name]))
