"""What becomes of a layer's queries, keys and values before it attends, on a GPU: a program some heads of a row.

    queries, keys: norm(x) * weight, then turned by the row's position;  values: norm(x)

Keys and values go straight to where the block tables say; what is not finite becomes zero there (`KvStorage`). Every
value that is a tensor of its own in `layers` is rounded here as it is there.
"""

import torch
import triton
import triton.language as tl

from tandem.attention.overlap import is_overlapping

_HEADS = 4  # of a program


@triton.jit
def _arrange_heads(
    product,  # [T, num_projected, SIZE]
    weight,  # [num_all, SIZE]
    cos,  # [T, 1, SIZE]
    sin,  # [T, 1, SIZE]
    queries,  # [T, num_heads, SIZE]
    kv,  # [num_slots, 2, num_kv_heads, SIZE]
    slots,  # [T] int64
    eps,
    angle_stride,
    num_projected,
    num_heads,
    num_kv_heads,
    SIZE: tl.constexpr,
    HEADS: tl.constexpr,  # of a program
    IS_K_EQ_V: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    kind = queries.dtype.element_ty
    is_head = head < num_heads + 2 * num_kv_heads
    is_query, is_value = head < num_heads, head >= num_heads + num_kv_heads
    source = head
    if IS_K_EQ_V:
        source = tl.where(is_value, head - num_kv_heads, head)
    dims = tl.arange(0, SIZE)
    other_dims = (dims + SIZE // 2) % SIZE
    # Weights, angles and slots are older than the kernel before.
    at_weight, mask = weight + head[:, None] * SIZE, is_head[:, None]
    gain = tl.load(at_weight + dims[None, :], mask=mask, other=0.0).to(tl.float32)
    other_gain = tl.load(at_weight + other_dims[None, :], mask=mask, other=0.0).to(tl.float32)
    cosine = tl.load(cos + row * angle_stride + dims).to(tl.float32)[None, :]
    sine = tl.load(sin + row * angle_stride + dims).to(tl.float32)[None, :]
    slot = tl.load(slots + row)
    if OVERLAPS:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    start = product + (row * num_projected + source)[:, None] * SIZE
    wide = tl.load(start + dims[None, :], mask=mask, other=0.0).to(tl.float32)
    other = tl.load(start + other_dims[None, :], mask=mask, other=0.0).to(tl.float32)
    length = tl.rsqrt(tl.sum(wide * wide, 1) / SIZE + eps)[:, None]
    value = (wide * length * gain).to(kind)
    other = (other * length * other_gain).to(kind).to(tl.float32)
    turned = (value.to(tl.float32) * cosine).to(kind).to(tl.float32)
    value = tl.where(is_value[:, None], value, (turned + other * sine).to(kind))
    at_query = queries + (row * num_heads + head)[:, None] * SIZE
    tl.store(at_query + dims[None, :], value, mask=mask & is_query[:, None])
    kv_head = tl.where(is_value, head - num_heads - num_kv_heads, head - num_heads)
    entry = (slot * 2 + is_value.to(tl.int64)) * num_kv_heads + kv_head
    value = tl.where(tl.abs(value.to(tl.float32)) < float("inf"), value, 0.0)
    tl.store(kv + entry[:, None] * SIZE + dims[None, :], value, mask=mask & ~is_query[:, None])


def arrange_heads(
    product: torch.Tensor,  # [T, num_projected, head_dim]
    weight: torch.Tensor,  # [num_all, head_dim], ones for values
    eps: float,
    cos: torch.Tensor,  # [T, 1, head_dim]
    sin: torch.Tensor,  # [T, 1, head_dim], the first half negated
    kv: torch.Tensor,  # [num_slots, 2, num_kv_heads, head_dim]
    slots: torch.Tensor,  # [T] int64
    num_heads: int,
    owns_kv: bool,
    is_k_eq_v: bool,
) -> torch.Tensor:  # [T, num_heads, head_dim]
    """The queries; keys and values of a layer that owns KV are in `kv` then. Does not wait for the device."""
    assert cos.stride() == sin.stride() and cos.stride(-1) == 1
    num_rows, num_projected, size = product.shape
    queries = product.new_empty(num_rows, num_heads, size)
    num_kv_heads = kv.shape[2] if owns_kv else 0
    overlaps = is_overlapping(product.device)
    _arrange_heads[(num_rows, triton.cdiv(num_heads + 2 * num_kv_heads, _HEADS))](
        product,
        weight,
        cos,
        sin,
        queries,
        kv,
        slots,
        eps,
        cos.stride(0),
        num_projected,
        num_heads,
        num_kv_heads,
        SIZE=size,
        HEADS=_HEADS,
        IS_K_EQ_V=is_k_eq_v,
        OVERLAPS=overlaps,
        num_warps=4,
        launch_pdl=overlaps,
    )
    return queries
