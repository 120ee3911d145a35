"""Reading config.json: both ways to write one, and one clear line for what cannot be served."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tandem.core.errors import CheckpointError
from tandem.models.gemma4.attention_config import FULL, SLIDING
from tandem.models.gemma4.config import ExpertsConfig, PerLayerInputsConfig, read_target_config
from tandem.models.gemma4.drafter_config import CentroidConfig, read_drafter_config
from tests.checkpoints import VARIANTS, make_tiny_pair

MOE = VARIANTS["26b-a4b"]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return make_tiny_pair(tmp_path)


def rewrite(path: Path, **changes: Any) -> dict[str, Any]:
    """Changes fields; None removes one."""
    file = path / "config.json"
    config = {**json.loads(file.read_text()), **changes}
    config = {name: value for name, value in config.items() if value is not None}
    file.write_text(json.dumps(config))
    return config


def rewrite_text(path: Path, **changes: Any) -> None:
    text = {**json.loads((path / "config.json").read_text())["text_config"], **changes}
    rewrite(path, text_config=text)


def test_a_targets_shape(pair: tuple[Path, Path]) -> None:
    config = read_target_config(pair[0])
    assert (config.vocab_size, config.hidden_size, config.intermediate_size, config.num_hidden_layers) == (
        64,
        32,
        48,
        6,
    )
    sliding, full = config.attention[SLIDING], config.attention[FULL]
    assert (sliding.num_kv_heads, sliding.head_dim, sliding.window, sliding.is_k_eq_v) == (2, 8, 8, False)
    assert (full.num_kv_heads, full.head_dim, full.window, full.is_k_eq_v) == (1, 16, None, True)
    assert (sliding.num_rope_angles, full.num_rope_angles) == (4, 2)
    assert (sliding.rope_theta, full.rope_theta) == (1e4, 1e6)
    assert [group.layer_ids for group in config.kv_groups] == [(0, 1, 3, 4), (2, 5)]


def test_per_layer_config_says_the_same(pair: tuple[Path, Path]) -> None:
    before = read_target_config(pair[0])
    overrides = {"head_dim": 16, "num_key_value_heads": 1}
    rewrite(
        pair[0],
        global_head_dim=None,
        num_global_key_value_heads=None,
        per_layer_config={"2": overrides, "05": overrides},
    )
    assert read_target_config(pair[0]) == before


def test_what_transformers_writes_is_read(pair: tuple[Path, Path], tmp_path: Path) -> None:
    from transformers import AutoConfig

    for path, read in zip(pair, (read_target_config, read_drafter_config), strict=True):
        AutoConfig.from_pretrained(path).save_pretrained(tmp_path / "saved")
        assert "per_layer_config" in (tmp_path / "saved" / "config.json").read_text()
        assert read(tmp_path / "saved") == read(path)


@pytest.mark.parametrize("model_type", ["gemma4", "gemma4_unified"])
def test_a_multimodal_wrapper(model_type: str, tmp_path: Path) -> None:
    path, _ = make_tiny_pair(tmp_path, model_type=f"{model_type}_text")
    plain = read_target_config(path)
    text = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({"model_type": model_type, "text_config": text, "vision_config": {}}))
    assert read_target_config(path) == replace(plain, tensor_prefix="model.language_model.")


@pytest.mark.parametrize("name", VARIANTS)
def test_what_transformers_writes_is_read_for_every_target(name: str, tmp_path: Path) -> None:
    from transformers import AutoConfig

    path, _ = make_tiny_pair(tmp_path, **VARIANTS[name])
    AutoConfig.from_pretrained(path).save_pretrained(tmp_path / "saved")
    assert read_target_config(tmp_path / "saved") == read_target_config(path)


def test_what_sets_the_variants_apart(tmp_path: Path) -> None:
    configs = {name: read_target_config(make_tiny_pair(tmp_path / name, **VARIANTS[name])[0]) for name in VARIANTS}
    assert [name for name, config in configs.items() if config.experts] == ["26b-a4b"]
    assert [name for name, config in configs.items() if config.per_layer_inputs] == ["e4b", "e2b"]
    assert configs["26b-a4b"].experts == ExpertsConfig(num_experts=8, top_k=3, intermediate_size=24)
    assert configs["e4b"].per_layer_inputs == PerLayerInputsConfig(vocab_size=64, hidden_size=32)
    assert [configs["e2b"].intermediate_size_of(layer_id) for layer_id in range(6)] == [48, 48, 48, 96, 96, 96]
    assert [configs["e4b"].intermediate_size_of(layer_id) for layer_id in range(6)] == [48] * 6


def test_defaults_of_each_model_type(pair: tuple[Path, Path]) -> None:
    """A `gemma4_text` that says nothing has per-layer embeddings; a unified one has no such field."""
    absent = dict.fromkeys(
        ("hidden_size_per_layer_input", "vocab_size_per_layer_input", "sliding_window", "max_position_embeddings")
    )
    rewrite(pair[0], **absent)
    config = read_target_config(pair[0])
    assert config.per_layer_inputs == PerLayerInputsConfig(vocab_size=262_144, hidden_size=256)
    assert (config.attention[SLIDING].window, config.max_position_embeddings) == (512, 131_072)
    rewrite(pair[0], model_type="gemma4_unified_text")
    config = read_target_config(pair[0])
    assert config.per_layer_inputs is None
    assert (config.attention[SLIDING].window, config.max_position_embeddings) == (1024, 262_144)


def test_defaults_of_the_family(pair: tuple[Path, Path]) -> None:
    rewrite(
        pair[0], layer_types=None, rope_parameters=None, rms_norm_eps=None, num_hidden_layers=8, sliding_window=None
    )
    config = read_target_config(pair[0])
    assert [i for i, name in enumerate(config.layer_types) if name == FULL] == [5, 7]
    assert (config.rms_norm_eps, config.attention[SLIDING].window) == (1e-6, 512)
    assert config.attention[FULL].num_rope_angles == 2


def test_a_drafters_shape(pair: tuple[Path, Path]) -> None:
    config = read_drafter_config(pair[1])
    assert (config.backbone_hidden_size, config.text.hidden_size, config.text.num_kv_shared_layers) == (32, 16, 4)
    assert {group.name: group.layer_ids for group in config.text.kv_groups} == {SLIDING: (0, 1, 2), FULL: (3,)}
    assert config.centroids is None


@pytest.mark.parametrize(("name", "backbone_hidden_size"), [("31b", 1536), ("12b", 3840)])
def test_a_drafter_with_centroids(name: str, backbone_hidden_size: int, tmp_path: Path) -> None:
    _, path = make_tiny_pair(tmp_path, centroids=(16, 3), **VARIANTS[name])
    assert read_drafter_config(path).centroids == CentroidConfig(num_centroids=16, top_k=3)
    rewrite(path, use_ordered_embeddings=None, backbone_hidden_size=None)
    config = read_drafter_config(path)
    assert config.centroids is None
    assert config.backbone_hidden_size == backbone_hidden_size


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gemma3_text"}, "gemma4_text, gemma4_unified_text, gemma4, gemma4_unified, not 'gemma3_text'"),
        ({"model_type": None}, "model_type must be text, not None"),
        ({"enable_moe_block": 1}, "enable_moe_block must be true or false"),
        ({"enable_moe_block": True}, "num_experts must be an integer of at least 1, not None"),
        ({**MOE, "top_k_experts": 9}, "top_k_experts must be at most num_experts = 8, not 9"),
        ({**MOE, "moe_intermediate_size": None}, "moe_intermediate_size must be an integer"),
        ({**MOE, "moe_intermediate_size": 20}, "moe_intermediate_size must be a multiple of 8"),
        ({"hidden_size_per_layer_input": -1}, "hidden_size_per_layer_input must be an integer of at least 0"),
        ({"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 63}, "must be at least vocab_size, not 63"),
        ({"attention_bias": True}, "attention_bias"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"hidden_activation": "silu"}, "hidden_activation"),
        ({"use_bidirectional_attention": "all"}, "use_bidirectional_attention"),
        ({"vocab_size": None}, "vocab_size must be an integer of at least 1, not None"),
        ({"vocab_size": "64"}, "vocab_size must be an integer of at least 1, not '64'"),
        ({"hidden_size": True}, "hidden_size must be an integer"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be an integer of at least 1, not 0"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps must be a positive number"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be a positive number"),
        ({"final_logit_softcapping": 0.0}, "final_logit_softcapping must be a positive number"),
        ({"attention_k_eq_v": 1}, "attention_k_eq_v must be true or false"),
        ({"layer_types": [FULL]}, "layer_types must have num_hidden_layers = 6 entries"),
        ({"layer_types": [SLIDING] * 6}, "layer_types must end with full_attention"),
        ({"layer_types": ["recurrent"] * 6}, "layer_types must list"),
        ({"num_key_value_heads": 3}, "num_key_value_heads must divide num_attention_heads = 4"),
        ({"head_dim": 7}, "head_dim must be even"),
        ({"num_kv_shared_layers": 5}, "num_kv_shared_layers must leave each layer type"),
        ({"rope_parameters": {SLIDING: {"rope_theta": 1e4}}}, "full_attention must be an object, not None"),
        ({"rope_parameters": {SLIDING: {"rope_type": "yarn"}}}, "rope_type must be 'default' or 'proportional'"),
        ({"rope_parameters": {SLIDING: {"rope_theta": 1e4, "factor": 8.0}}}, "factor must be 1"),
        ({"per_layer_config": {"2": {"head_dim": 16}, "5": {"head_dim": 32}}}, "per_layer_config may give"),
        ({"per_layer_config": {"2": {"intermediate_size": 5}}}, "per_layer_config may give"),
        ({"per_layer_config": {"last": {}}}, "per_layer_config must be keyed by layer number"),
    ],
)
def test_what_is_wrong_with_a_target_is_one_line(changes: dict[str, Any], words: str, pair: tuple[Path, Path]) -> None:
    rewrite(pair[0], **changes)
    with pytest.raises(CheckpointError) as caught:
        read_target_config(pair[0])
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert str(pair[0]) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "text_changes", "words"),
    [
        ({"model_type": "gemma4_text"}, {}, "model_type of a drafter must be gemma4_assistant or gemma4_unified_assis"),
        ({"use_ordered_embeddings": 1}, {}, "use_ordered_embeddings must be true or false, not 1"),
        ({"use_ordered_embeddings": True}, {}, "num_centroids = 2048 must divide vocab_size = 64"),
        (
            {"use_ordered_embeddings": True, "num_centroids": 24},
            {},
            "num_centroids = 24 must divide vocab_size = 64",
        ),
        (
            {"use_ordered_embeddings": True, "num_centroids": 16},
            {},
            "intermediate_top_k = 32 must be at most num_centroids = 16",
        ),
        ({"backbone_hidden_size": 0}, {}, "backbone_hidden_size must be"),
        ({"text_config": None}, None, "text_config must be an object"),
        ({}, {"num_kv_shared_layers": 2}, "num_kv_shared_layers must be 4"),
        ({}, {"model_type": "llama"}, "model_type must be 'gemma4_text' or 'gemma4_unified_text', not 'llama'"),
        ({}, {"enable_moe_block": True}, "enable_moe_block: mixture of experts in a drafter: not served"),
        ({}, {"use_double_wide_mlp": True}, "use_double_wide_mlp: double-wide feed-forward layers in a drafter"),
        ({}, {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 64}, "hidden_size_per_layer_input must"),
    ],
)
def test_what_is_wrong_with_a_drafter_is_one_line(
    changes: dict[str, Any], text_changes: dict[str, Any] | None, words: str, pair: tuple[Path, Path]
) -> None:
    rewrite(pair[1], **changes)
    if text_changes is not None:
        rewrite_text(pair[1], **text_changes)
    with pytest.raises(CheckpointError) as caught:
        read_drafter_config(pair[1])
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_paths_that_hold_no_checkpoint(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(CheckpointError, match=r"not a checkpoint folder, for there is no config\.json"):
            read_target_config(path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_target_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="must hold a JSON object"):
        read_target_config(tmp_path)
