"""The tensors behind the block tables."""

from collections.abc import Callable, Iterable, Mapping

import torch

from tandem.kv_cache.group import KvGroup

Allocate = Callable[[int, tuple[int, ...]], torch.Tensor]  # layer id, shape -> zeroed tensor


class KvStorage:
    """One tensor a layer that owns KV: `[num_blocks * block_size, 2, num_kv_heads, head_dim]`.

    Slot `block_id * block_size + offset` holds one token; keys (normed and rotated) lie at index 0, values at 1, so
    that one indexed write stores both and one gather reads both. Slots start as zeros.
    """

    def __init__(
        self,
        groups: Iterable[KvGroup],
        num_blocks: Mapping[str, int],
        block_size: int,
        dtype: torch.dtype,
        device: torch.device | str,
        allocate: Allocate | None = None,
    ) -> None:
        """Allocates every layer.

        Args:
            groups: the groups of the model.
            num_blocks: blocks of each group, by its name.
            block_size: tokens a block.
            dtype: of keys and values.
            device: where the tensors live.
            allocate: places a layer's tensor elsewhere, such as in shared memory; it returns a zeroed, contiguous
                tensor of that shape, dtype and device.
        """
        assert block_size > 0
        self.block_size = block_size
        self._layers: dict[int, torch.Tensor] = {}
        for group in groups:
            shape = (num_blocks[group.name] * block_size, *group.slot_shape)
            for layer_id in group.layer_ids:
                assert layer_id not in self._layers, "a layer belongs to one group"
                layer = allocate(layer_id, shape) if allocate else torch.zeros(shape, dtype=dtype, device=device)
                assert layer.shape == shape and layer.dtype == dtype and layer.is_contiguous()
                self._layers[layer_id] = layer

    def __getitem__(self, layer_id: int) -> torch.Tensor:  # [num_slots, 2, num_kv_heads, head_dim]
        """The tensor of a layer that owns KV."""
        return self._layers[layer_id]

    @property
    def layer_ids(self) -> tuple[int, ...]:
        """Layers that own KV, group by group."""
        return tuple(self._layers)

    @property
    def num_bytes(self) -> int:
        """Bytes of all layers together."""
        return sum(layer.nbytes for layer in self._layers.values())
