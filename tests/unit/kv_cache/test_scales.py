"""Keys and values of 8 bits: scales that prevent overflow and round nothing, and what is read of what was written."""

import pytest
import torch

from tandem.kv_cache.scales import UNSCALED, KvScales, scales_for
from tandem.kv_cache.storage import widen_kv, write_kv

FP8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FP8).max
SHAPE = (2, 3, 8)  # of a slot


def entries(count: int) -> torch.Tensor:  # -> [count, *SHAPE]
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("largest", [1e-6, 0.9, 439.0, 440.0, 448.0, 449.0, 5000.0])
def test_scales_are_the_least_that_prevent_overflow(largest: float) -> None:
    for scale in (scales_for(largest, 1.0, FP8).key, scales_for(1.0, largest, FP8).value):
        assert LARGEST / 2 * 0.98 < largest / scale <= LARGEST
        assert torch.tensor(largest / scale).to(FP8).float().isfinite()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_wider_formats_have_no_scales(dtype: torch.dtype) -> None:
    assert scales_for(5000.0, 1e-6, dtype) == UNSCALED == KvScales()
    assert UNSCALED.key == UNSCALED.value == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_read_is_what_was_written_but_for_half_a_step(dtype: torch.dtype) -> None:
    scales = KvScales(key_exponent=-4, value_exponent=3)
    layer = torch.zeros(10, *SHAPE, dtype=FP8)
    written = (entries(4) * torch.tensor([2.0, 100.0]).view(2, 1, 1)).to(dtype)
    slots = torch.tensor([7, 0, 9, 3])
    write_kv(layer, slots, written, scales)
    read = widen_kv(layer.index_select(0, slots), dtype, scales)
    assert read.dtype == dtype
    # Below the smallest number with all its bits, steps no longer shrink.
    smallest = torch.tensor([scales.key, scales.value]).view(2, 1, 1) * 2.0**-6
    error = (read.float() - written.float()).abs()
    assert (error <= torch.maximum(written.float().abs(), smallest) * 2.0**-4).all() and error.any()
    untouched = [slot for slot in range(10) if slot not in slots]
    assert not layer.float()[untouched].any()


def test_numbers_of_the_format_come_back_to_the_bit() -> None:
    scales = KvScales(key_exponent=-7, value_exponent=2)
    numbers = torch.stack((entries(5)[:, 0].to(FP8).float() * scales.key, entries(5)[:, 1].to(FP8).float() * 4), 1)
    layer = torch.zeros(5, *SHAPE, dtype=FP8)
    write_kv(layer, torch.arange(5), numbers, scales)
    assert torch.equal(widen_kv(layer, torch.float32, scales), numbers)


def test_what_is_not_finite_is_stored_as_zero() -> None:
    layer = torch.ones(3, *SHAPE).to(FP8)
    write_kv(
        layer,
        torch.arange(3),
        torch.tensor([torch.nan, torch.inf, 1.0])[:, None, None, None] * entries(3).abs(),
        UNSCALED,
    )
    assert not layer[:2].float().any() and layer[2].float().isfinite().all()


def test_a_layer_of_the_same_format_keeps_every_bit() -> None:
    layer = torch.zeros(5, *SHAPE)
    write_kv(layer, torch.tensor([4, 2]), entries(2), UNSCALED)
    assert torch.equal(layer[[4, 2]], entries(2))
