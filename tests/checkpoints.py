"""Tiny random pairs on disk in Hugging Face's format, for every test that needs a model.

Written without transformers, and read by it as well as by us. The weights are drawn so that a pair says more than one
thing: norms near one, projections that keep the size of what they map, logits a few units wide. Attention scores are
kept small, since a softmax with one winner makes much of the last bit.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

SLIDING = "sliding_attention"
FULL = "full_attention"

_LOGIT_SCALE = 4.0
_QUERY_KEY_SCALE = 0.5
_TEXT = {
    "model_type": "gemma4_text",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_global_key_value_heads": 1,
    "head_dim": 8,
    "global_head_dim": 16,
    "attention_k_eq_v": True,
    "sliding_window": 8,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 1024,
    "final_logit_softcapping": 30.0,
    "rope_parameters": {
        SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
        FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
    },
    "tie_word_embeddings": True,
    "attention_bias": False,
    "num_kv_shared_layers": 0,
    "enable_moe_block": False,
    "use_double_wide_mlp": False,
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
    "dtype": "float32",
}
# What sets the five targets apart, for `make_tiny_pair(folder, **VARIANTS[...])`.
VARIANTS: dict[str, dict[str, Any]] = {
    "31b": {},
    "26b-a4b": {"enable_moe_block": True, "num_experts": 8, "top_k_experts": 3, "moe_intermediate_size": 24},
    "12b": {"model_type": "gemma4_unified_text"},
    "e4b": {
        "attention_k_eq_v": False,
        "num_global_key_value_heads": None,
        "num_kv_shared_layers": 2,
        "hidden_size_per_layer_input": 32,
        "vocab_size_per_layer_input": 64,
        "centroids": (16, 3),
    },
    "e2b": {
        "attention_k_eq_v": False,
        "num_key_value_heads": 1,
        "num_global_key_value_heads": None,
        "num_kv_shared_layers": 3,
        "use_double_wide_mlp": True,
        "hidden_size_per_layer_input": 32,
        "vocab_size_per_layer_input": 64,
        "centroids": (16, 3),
    },
}
_NOT_IN_DRAFTERS = {
    "enable_moe_block": False,
    "use_double_wide_mlp": False,
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": 0,
}
_ARCHITECTURES = {
    "gemma4_text": ("Gemma4ForCausalLM", "gemma4_assistant", "Gemma4AssistantForCausalLM"),
    "gemma4_unified_text": (
        "Gemma4UnifiedForCausalLM",
        "gemma4_unified_assistant",
        "Gemma4UnifiedAssistantForCausalLM",
    ),
}
_DRAFTER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "final_logit_softcapping": None}


def make_tiny_pair(
    folder: Path,
    seed: int = 0,
    drafter: dict[str, Any] | None = None,
    centroids: tuple[int, int] | None = None,
    **overrides: Any,
) -> tuple[Path, Path]:
    """Writes `folder/target` and `folder/drafter`, and returns both paths.

    `overrides` are fields of the target's config; the drafter follows in all that it shares with the target.
    `drafter` overrides fields of the drafter's own text config, and `centroids` (how many, how many of them are looked
    into) gives it that head. Every third layer is a full one in the target, the last
    one in the drafter, unless `layer_types` says otherwise.
    """
    generator = torch.Generator().manual_seed(seed)
    text = {**_TEXT, **overrides}
    text.setdefault("layer_types", _every_third_full(text["num_hidden_layers"]))
    own = {**_DRAFTER, **(drafter or {})}
    drafter_text = {**text, **_NOT_IN_DRAFTERS, **own, "num_kv_shared_layers": own["num_hidden_layers"]}
    drafter_text["layer_types"] = own.get("layer_types", [SLIDING] * (own["num_hidden_layers"] - 1) + [FULL])

    target_architecture, drafter_type, drafter_architecture = _ARCHITECTURES[text["model_type"]]
    target_config = {"architectures": [target_architecture], **text}
    drafter_config = {
        "architectures": [drafter_architecture],
        "model_type": drafter_type,
        "backbone_hidden_size": text["hidden_size"],
        "use_ordered_embeddings": centroids is not None,
        "tie_word_embeddings": True,
        "dtype": "float32",
        "text_config": drafter_text,
    }
    if centroids:
        drafter_config["num_centroids"], drafter_config["centroid_intermediate_top_k"] = centroids
    target_path, drafter_path = folder / "target", folder / "drafter"
    write_checkpoint(target_path, target_config, dict(target_tensors(text, generator)))
    tensors = dict(drafter_tensors(drafter_text, text["hidden_size"], generator))
    if centroids:
        tensors |= centroid_tensors(drafter_text, centroids[0], generator)
    write_checkpoint(drafter_path, drafter_config, tensors)
    return target_path, drafter_path


def write_checkpoint(path: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Writes config.json, generation_config.json and one safetensors file."""
    path.mkdir(parents=True, exist_ok=True)
    generation = {"bos_token_id": 2, "eos_token_id": [1, 3], "pad_token_id": 0}
    (path / "config.json").write_text(json.dumps(config, indent=2))
    (path / "generation_config.json").write_text(json.dumps(generation, indent=2))
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def shard(path: Path) -> None:
    """Makes two files with an index of a checkpoint's one."""
    tensors = load_file(path / "model.safetensors")
    names = sorted(tensors)
    halves = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, path / file)
    weight_map = {name: file for file, part in halves.items() for name in part}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (path / "model.safetensors").unlink()


def target_tensors(text: dict[str, Any], generator: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a target."""
    num_owning = text["num_hidden_layers"] - text["num_kv_shared_layers"]
    yield from _decoder_tensors(text, num_owning, generator)
    if text["hidden_size_per_layer_input"]:
        yield from _per_layer_input_tensors(text, generator)
    if text["enable_moe_block"]:
        yield from _expert_tensors(text, generator)


def drafter_tensors(
    text: dict[str, Any], backbone: int, generator: torch.Generator
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a drafter."""
    yield from _decoder_tensors(text, 0, generator)
    yield "pre_projection.weight", _matrix(text["hidden_size"], 2 * backbone, generator)
    yield "post_projection.weight", _matrix(backbone, text["hidden_size"], generator)


def centroid_tensors(text: dict[str, Any], num_centroids: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """What a head over centroids has besides the drafter's other tensors."""
    return {
        "masked_embedding.centroids.weight": _matrix(num_centroids, text["hidden_size"], generator),
        "masked_embedding.token_ordering": torch.randperm(text["vocab_size"], generator=generator),
    }


def _decoder_tensors(
    text: dict[str, Any], num_owning: int, generator: torch.Generator
) -> Iterator[tuple[str, torch.Tensor]]:
    hidden, heads = text["hidden_size"], text["num_attention_heads"]
    yield "model.embed_tokens.weight", _matrix(text["vocab_size"], hidden, generator)
    for layer_id, layer_type in enumerate(text["layer_types"]):
        is_full = layer_type == FULL
        is_k_eq_v = is_full and text["attention_k_eq_v"]
        head_dim = text["global_head_dim"] if is_full else text["head_dim"]
        kv_heads = text["num_global_key_value_heads"] if is_k_eq_v else text["num_key_value_heads"]
        layer = f"model.layers.{layer_id}"
        yield f"{layer}.self_attn.q_proj.weight", _matrix(heads * head_dim, hidden, generator)
        yield f"{layer}.self_attn.q_norm.weight", _QUERY_KEY_SCALE * _near_one(head_dim, generator)
        if layer_id < num_owning:
            yield f"{layer}.self_attn.k_proj.weight", _matrix(kv_heads * head_dim, hidden, generator)
            yield f"{layer}.self_attn.k_norm.weight", _QUERY_KEY_SCALE * _near_one(head_dim, generator)
            if not is_k_eq_v:
                yield f"{layer}.self_attn.v_proj.weight", _matrix(kv_heads * head_dim, hidden, generator)
        yield f"{layer}.self_attn.o_proj.weight", _matrix(hidden, heads * head_dim, generator)
        is_double_wide = text["use_double_wide_mlp"] and layer_id >= num_owning
        intermediate = text["intermediate_size"] * (2 if is_double_wide else 1)
        yield f"{layer}.mlp.gate_proj.weight", _matrix(intermediate, hidden, generator)
        yield f"{layer}.mlp.up_proj.weight", _matrix(intermediate, hidden, generator)
        yield f"{layer}.mlp.down_proj.weight", _matrix(hidden, intermediate, generator)
        for norm in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            yield f"{layer}.{norm}_layernorm.weight", _near_one(hidden, generator)
        yield f"{layer}.layer_scalar", 0.9 * _near_one(1, generator)
    yield "model.norm.weight", _LOGIT_SCALE * _near_one(hidden, generator)


def _per_layer_input_tensors(text: dict[str, Any], generator: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
    hidden, size, num_layers = text["hidden_size"], text["hidden_size_per_layer_input"], text["num_hidden_layers"]
    table = _matrix(text["vocab_size_per_layer_input"], num_layers * size, generator)
    yield "model.embed_tokens_per_layer.weight", table * num_layers**0.5
    yield "model.per_layer_model_projection.weight", hidden**0.5 * _matrix(num_layers * size, hidden, generator)
    yield "model.per_layer_projection_norm.weight", _near_one(size, generator)
    for layer_id in range(num_layers):
        layer = f"model.layers.{layer_id}"
        yield f"{layer}.per_layer_input_gate.weight", _matrix(size, hidden, generator)
        yield f"{layer}.per_layer_projection.weight", _matrix(hidden, size, generator)
        yield f"{layer}.post_per_layer_input_norm.weight", _near_one(hidden, generator)


def _expert_tensors(text: dict[str, Any], generator: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
    """Router scores are a few units apart, so that every expert is chosen by some rows."""
    hidden, size, num_experts = text["hidden_size"], text["moe_intermediate_size"], text["num_experts"]
    for layer_id in range(text["num_hidden_layers"]):
        layer = f"model.layers.{layer_id}"
        gate_up = torch.stack([_matrix(2 * size, hidden, generator) for _ in range(num_experts)])
        down = torch.stack([_matrix(hidden, size, generator) for _ in range(num_experts)])
        yield f"{layer}.experts.gate_up_proj", gate_up
        yield f"{layer}.experts.down_proj", down
        yield f"{layer}.router.proj.weight", hidden**0.5 * _matrix(num_experts, hidden, generator)
        yield f"{layer}.router.scale", _near_one(hidden, generator)
        yield f"{layer}.router.per_expert_scale", _near_one(num_experts, generator)
        for norm in ("post_feedforward_layernorm_1", "post_feedforward_layernorm_2", "pre_feedforward_layernorm_2"):
            yield f"{layer}.{norm}.weight", _near_one(hidden, generator)


def _matrix(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:  # -> [rows, columns]
    return torch.randn(rows, columns, generator=generator) / columns**0.5


def _near_one(size: int, generator: torch.Generator) -> torch.Tensor:  # -> [size]
    return 1.0 + 0.1 * torch.randn(size, generator=generator)


def _every_third_full(num_layers: int) -> list[str]:
    layer_types = [FULL if (layer_id + 1) % 3 == 0 else SLIDING for layer_id in range(num_layers)]
    return [*layer_types[:-1], FULL]
