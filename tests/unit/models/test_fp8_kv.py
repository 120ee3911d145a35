"""Networks over keys and values of 8 bits: nothing overflows, little changes, and the drafter reads what was meant."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tandem.engine.shared_scales import scaled_spec
from tandem.kv_cache.scales import KvScales
from tandem.kv_cache.storage import widen_kv
from tandem.models.gemma4.weights import load_drafter, load_target
from tests.checkpoints import VARIANTS, make_tiny_pair
from tests.unit.engine.drafting import exchange_spec
from tests.unit.models.paged import BLOCK_SIZE, PagedRunner

FP8 = torch.float8_e4m3fn
TOKEN_IDS = torch.randint(0, 64, (30,), generator=torch.Generator().manual_seed(0)).tolist()


def make_keys_larger(path: Path, factor: float) -> None:
    """The same for queries turned round: scores stay as they are."""
    tensors = load_file(path / "model.safetensors")
    for name in tensors:
        if "k_norm" in name:
            tensors[name] *= factor
        elif "q_norm" in name:
            tensors[name] /= factor
    save_file(tensors, path / "model.safetensors")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("factor", [1.0, 1024.0])
def test_hidden_rows_change_little(variant: str, factor: float, tmp_path: Path) -> None:
    """However large keys are: without scales, the larger ones would overflow."""
    path, _ = make_tiny_pair(tmp_path, **VARIANTS[variant])
    expected = PagedRunner(load_target(path, torch.float32, "cpu")).step({"a": TOKEN_IDS})["a"]
    make_keys_larger(path, factor)
    rows = PagedRunner(load_target(path, torch.float32, "cpu"), kv_dtype=FP8).step({"a": TOKEN_IDS})["a"]
    # Of most rows: where two experts' scores are near, a row may go through the other one.
    error = ((rows - expected).norm(dim=1) / expected.norm(dim=1)).median()
    assert 1e-4 < error < 0.15


def test_no_key_or_value_can_exceed_what_the_scales_are_for(tmp_path: Path) -> None:
    """Stored numbers are finite even for rows whose norm lies in a single number, which is the most there can be."""
    target = load_target(make_tiny_pair(tmp_path)[0], torch.float32, "cpu")
    for layer_id, scales in target.kv_scales(FP8).items():
        norm = target._layers[layer_id]._head_norm
        size = norm.weight.shape[1]
        spike = norm(torch.eye(size).unsqueeze(1).repeat(1, norm.weight.shape[0], 1) * 1e3)
        keys = spike[:, target.config.num_attention_heads :].abs().max() / scales.key
        assert keys.to(FP8).float().isfinite() and size**0.5 / scales.value <= torch.finfo(FP8).max


def test_a_drafter_reads_the_targets_keys_and_values_with_its_scales(tmp_path: Path) -> None:
    """Its scores over 8 bits are those over the same numbers written out, and not those without scales."""
    paths = make_tiny_pair(tmp_path)
    make_keys_larger(paths[0], 50.0)
    target = load_target(paths[0], torch.float32, "cpu")
    drafter = load_drafter(paths[1], target.config, torch.float32, "cpu", target.embed_tokens)
    runner = PagedRunner(target, kv_dtype=FP8)
    hidden = runner.step({"a": TOKEN_IDS})["a"][-1:]
    spec = scaled_spec(exchange_spec(target), target, runner.kv)
    scales = {layer.group: KvScales(layer.key_exponent, layer.value_exponent) for layer in spec.layers}
    wide = {group: widen_kv(kv, torch.float32, scales[group]) for group, kv in runner.drafter_kv.items()}
    metadata = drafter.backend.prepare(runner.drafter_batch(["a"]), drafter.kv_groups, BLOCK_SIZE)

    def logits(kv: dict[str, torch.Tensor], kv_scales: dict[str, KvScales] | None) -> torch.Tensor:
        scores, _ = drafter.forward(torch.tensor([7]), hidden, drafter.inputs_of(metadata), kv, kv_scales)
        return scores.logits

    assert torch.equal(logits(runner.drafter_kv, scales), logits(wide, None))
    assert not torch.allclose(logits(runner.drafter_kv, None), logits(wide, None), rtol=0.05)
