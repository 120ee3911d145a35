"""Loading is strict, reads into memory that it is given, and says in one line what is wrong."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tandem.core.errors import CheckpointError
from tandem.models.gemma4 import checkpoint_files
from tandem.models.gemma4.checkpoint_files import CheckpointFiles
from tandem.models.gemma4.config import read_target_config
from tandem.models.gemma4.drafter_config import read_drafter_config
from tandem.models.gemma4.weights import check_pair, load_drafter, load_target
from tandem.models.weight_files import revision
from tests.checkpoints import FULL, SLIDING, make_tiny_pair, shard
from tests.unit.models.paged import PagedRunner

Tensors = dict[str, torch.Tensor]
TOKEN_IDS = [2, 5, 9, 33, 7]
ROPE = {SLIDING: {"rope_theta": 500.0}, FULL: {"rope_theta": 1e6}}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return make_tiny_pair(tmp_path)


def change(path: Path, edit: Callable[[Tensors], object]) -> None:
    tensors = load_file(path / "model.safetensors")
    edit(tensors)
    save_file(tensors, path / "model.safetensors")


def hidden(path: Path) -> torch.Tensor:
    return PagedRunner(load_target(path, torch.float32, "cpu")).step({"a": TOKEN_IDS})["a"]


def test_shards_equal_one_file(pair: tuple[Path, Path]) -> None:
    expected = hidden(pair[0])
    shard(pair[0])
    assert torch.equal(hidden(pair[0]), expected)


def test_the_table_is_read_into_given_memory(pair: tuple[Path, Path]) -> None:
    table = torch.empty(64, 32)
    target = load_target(pair[0], torch.float32, "cpu", embedding=table)
    assert target.embed_tokens is table
    assert torch.equal(table, load_file(pair[0] / "model.safetensors")["model.embed_tokens.weight"])


def test_progress_counts_every_weight(pair: tuple[Path, Path]) -> None:
    seen: list[tuple[int, int]] = []
    target = load_target(pair[0], torch.float32, "cpu", progress=lambda done, total: seen.append((done, total)))
    sizes = [tensor.numel() for tensor in load_file(pair[0] / "model.safetensors").values()]
    done = [0, *(done for done, _ in seen)]
    assert sorted(after - before for before, after in pairwise(done)) == sorted(sizes)
    assert {total for _, total in seen} == {done[-1]} == {sum(sizes)}
    seen.clear()
    load_drafter(
        pair[1],
        target.config,
        torch.float32,
        "cpu",
        target.embed_tokens,
        lambda done, total: seen.append((done, total)),
    )
    total = sum(tensor.numel() for tensor in load_file(pair[1] / "model.safetensors").values())
    assert seen[-1] == (total, total)


@pytest.mark.parametrize("index", [0, 1])
def test_a_tensor_in_many_pieces_is_the_same_tensor(
    index: int, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> list[torch.Tensor]:
        target = load_target(pair[0], torch.float32, "cpu")
        networks = (target, load_drafter(pair[1], target.config, torch.float32, "cpu", None))
        return [view.clone() for _, destination in networks[index].destinations() for view in destination.views]

    whole = load()
    monkeypatch.setattr(checkpoint_files, "PIECE_BYTES", 1000)
    assert len(list(CheckpointFiles(pair[index]).read(["model.embed_tokens.weight"]))) >= 10
    assert all(torch.equal(*both) for both in zip(whole, load(), strict=True))


def test_what_the_files_do_not_hold_is_not_allocated(pair: tuple[Path, Path]) -> None:
    """A petabyte of weights, by config.json's account."""
    config = json.loads((pair[0] / "config.json").read_text())
    (pair[0] / "config.json").write_text(json.dumps(config | {"vocab_size": 1 << 45}))
    with pytest.raises(CheckpointError, match=r"embed_tokens.weight has shape \[64, 32\], not \[35184372088832, 32\]"):
        load_target(pair[0], torch.float32, "cpu")


def test_what_checkpoints_carry_besides_is_passed_over(tmp_path: Path) -> None:
    path, _ = make_tiny_pair(tmp_path, num_kv_shared_layers=2)
    expected = hidden(path)
    unused = {f"model.layers.5.self_attn.{name}.weight": torch.ones(3) for name in ("k_proj", "v_proj", "k_norm")}
    change(path, lambda tensors: tensors.update(unused | {"lm_head.weight": torch.ones(64, 32)}))
    assert torch.equal(hidden(path), expected)


def test_the_text_decoder_of_a_multimodal_model(pair: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    expected = hidden(pair[0])
    text = json.loads((pair[0] / "config.json").read_text())
    (pair[0] / "config.json").write_text(json.dumps({"model_type": "gemma4", "text_config": text}))
    tensors = load_file(pair[0] / "model.safetensors")
    renamed = {name.replace("model.", "model.language_model.", 1): tensor for name, tensor in tensors.items()}
    names = ("vision_tower.patch", "embed_vision.projection", "vision_embedder.pos_norm", "audio_tower.layers.0")
    others = {f"model.{name}.weight": torch.ones(2) for name in names}
    save_file(renamed | others, pair[0] / "model.safetensors")
    caplog.set_level("INFO", logger="tandem")
    assert torch.equal(hidden(pair[0]), expected)
    assert [record.getMessage() for record in caplog.records] == [
        f"{pair[0]}: text only is served; passed over: 1 tensors of audio, 3 tensors of vision"
    ]
    save_file(renamed | {"model.video_tower.patch.weight": torch.ones(2)}, pair[0] / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.video_tower\.patch\.weight is not expected"):
        load_target(pair[0], torch.float32, "cpu")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.pop("model.norm.weight"), "model.norm.weight is missing (1 tensors in all)"),
        (lambda t: t.pop("model.layers.3.layer_scalar"), "model.layers.3.layer_scalar is missing"),
        (lambda t: t.update(extra=torch.ones(1)), "model.safetensors: extra is not expected (1 in all)"),
        (
            lambda t: t.update({"model.layers.2.self_attn.v_proj.weight": torch.ones(16, 32)}),
            "model.layers.2.self_attn.v_proj.weight is not expected",
        ),
        (
            lambda t: t.update({"model.layers.0.self_attn.q_proj.weight": torch.ones(32, 31)}),
            "model.safetensors: model.layers.0.self_attn.q_proj.weight has shape [32, 31], not [32, 32]",
        ),
        (
            lambda t: t.update({"model.layers.0.self_attn.q_norm.weight": torch.ones(1)}),
            "model.layers.0.self_attn.q_norm.weight has shape [1], not [8]",
        ),
    ],
)
def test_a_wrong_tensor_is_one_line(edit: Callable[[Tensors], object], words: str, pair: tuple[Path, Path]) -> None:
    change(pair[0], edit)
    with pytest.raises(CheckpointError) as caught:
        load_target(pair[0], torch.float32, "cpu")
    assert words in str(caught.value) and "\n" not in str(caught.value) and str(pair[0]) in str(caught.value)


def test_damaged_files_are_one_line(pair: tuple[Path, Path]) -> None:
    file, index = pair[0] / "model.safetensors", pair[0] / "model.safetensors.index.json"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read"):
        load_target(pair[0], torch.float32, "cpu")
    file.unlink()
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor"):
        load_target(pair[0], torch.float32, "cpu")
    for text, words in (
        ("{", "weight_map"),
        ('{"weight_map": []}', "weight_map"),
        ('{"weight_map": {"a": "../a.safetensors"}}', "own folder"),
        ('{"weight_map": {"a": "pytorch_model.bin"}}', "safetensors files of its own folder"),
        ('{"weight_map": {"a": "absent.safetensors"}}', r"absent\.safetensors: cannot be read"),
    ):
        index.write_text(text)
        with pytest.raises(CheckpointError, match=words):
            load_target(pair[0], torch.float32, "cpu")


ORDERING = "masked_embedding.token_ordering"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.pop(ORDERING), f"{ORDERING} is missing"),
        (lambda t: t.pop("masked_embedding.centroids.weight"), "masked_embedding.centroids.weight is missing"),
        (lambda t: t.update({"masked_embedding.bias": torch.ones(1)}), "masked_embedding.bias is not expected"),
        (lambda t: t.update({ORDERING: torch.arange(63)}), f"{ORDERING} has shape [63], not [64]"),
        (lambda t: t.update({ORDERING: torch.arange(64).clamp(min=1)}), f"{ORDERING} must hold every token id"),
        (lambda t: t.update({ORDERING: torch.arange(64) - 1}), f"{ORDERING} must hold every token id"),
    ],
)
def test_a_wrong_head_over_centroids_is_one_line(edit: Callable[[Tensors], object], words: str, tmp_path: Path) -> None:
    target_path, path = make_tiny_pair(tmp_path, centroids=(16, 3))
    change(path, edit)
    with pytest.raises(CheckpointError) as caught:
        load_drafter(path, read_target_config(target_path), torch.float32, "cpu", None)
    assert words in str(caught.value) and "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_centroids_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    """A head over centroids that the configuration does not speak of."""
    target_path, path = make_tiny_pair(tmp_path, centroids=(16, 3))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "use_ordered_embeddings": False}))
    with pytest.raises(CheckpointError, match=r"masked_embedding\.centroids\.weight is not expected"):
        load_drafter(path, read_target_config(target_path), torch.float32, "cpu", None)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda m: m.pop("model.norm.weight"), "model.norm.weight is in model-2-of-2.safetensors, not in no file"),
        (lambda m: m.update(extra="model-1-of-2.safetensors"), "extra is in no file, not in model-1-of-2.safetensors"),
        (
            lambda m: m.update({"model.norm.weight": "model-1-of-2.safetensors"}),
            "model.norm.weight is in model-2-of-2.safetensors, not in model-1-of-2.safetensors",
        ),
    ],
)
def test_an_index_must_say_what_is_where(
    edit: Callable[[dict[str, str]], object], words: str, pair: tuple[Path, Path]
) -> None:
    shard(pair[0])
    index = pair[0] / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    edit(weight_map)
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError) as caught:
        load_target(pair[0], torch.float32, "cpu")
    assert str(caught.value) == f"{index}: {words}"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"hidden_size": 48}, "backbone_hidden_size is 32 in the drafter, 48 in the target"),
        ({"vocab_size": 80}, "vocab_size is 64 in the drafter, 80 in the target"),
        ({"head_dim": 16}, "head_dim of sliding_attention is 8 in the drafter, 16 in the target"),
        ({"global_head_dim": 32}, "head_dim of full_attention is 16 in the drafter, 32 in the target"),
        ({"num_key_value_heads": 4}, "num_kv_heads of sliding_attention is 2 in the drafter, 4 in the target"),
        ({"num_global_key_value_heads": 2}, "num_kv_heads of full_attention is 1 in the drafter, 2 in the target"),
        ({"sliding_window": 9}, "window of sliding_attention is 8 in the drafter, 9 in the target"),
        ({"rope_parameters": ROPE}, "rope_theta of sliding_attention is 10000.0 in the drafter, 500.0 in the target"),
        ({"layer_types": [FULL] * 6}, "layer_types: it has no sliding_attention layer"),
    ],
)
def test_a_drafter_of_another_target_is_named(target: dict[str, Any], words: str, tmp_path: Path) -> None:
    _, drafter_path = make_tiny_pair(tmp_path / "one")
    target_path, _ = make_tiny_pair(tmp_path / "other", **target)
    with pytest.raises(CheckpointError, match=words):
        check_pair(read_drafter_config(drafter_path), read_target_config(target_path))
    check_pair(read_drafter_config(drafter_path), read_target_config(tmp_path / "one" / "target"))


def test_revisions_tell_checkpoints_apart(tmp_path: Path) -> None:
    (target, drafter), (again, _), (other, _) = (
        make_tiny_pair(tmp_path / name, seed=seed) for name, seed in (("one", 0), ("two", 0), ("three", 1))
    )
    assert revision(target) == revision(again)
    assert len({revision(target), revision(drafter), revision(other)}) == 3
    assert len(revision(target)) == 12
    (other / "config.json").unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        revision(other)
