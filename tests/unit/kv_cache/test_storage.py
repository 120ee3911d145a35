"""KvStorage: shapes, sizes and who allocates."""

import pytest
import torch

from tandem.kv_cache.group import KvGroup
from tandem.kv_cache.storage import KvStorage

GROUPS = (
    KvGroup("sliding_attention", (0, 1, 3), num_kv_heads=2, head_dim=8, window=4),
    KvGroup("full_attention", (2,), num_kv_heads=1, head_dim=16, window=None),
)
NUM_BLOCKS = {"sliding_attention": 3, "full_attention": 5}


def test_every_layer_has_its_groups_shape() -> None:
    storage = KvStorage(GROUPS, NUM_BLOCKS, 4, torch.float32, "cpu")
    assert storage.layer_ids == (0, 1, 3, 2)
    assert [tuple(storage[i].shape) for i in (0, 1, 2, 3)] == [
        (12, 2, 2, 8),
        (12, 2, 2, 8),
        (20, 2, 1, 16),
        (12, 2, 2, 8),
    ]
    assert not any(storage[i].any() for i in storage.layer_ids)


def test_bytes_are_those_of_all_layers() -> None:
    storage = KvStorage(GROUPS, NUM_BLOCKS, 4, torch.bfloat16, "cpu")
    assert storage.num_bytes == 2 * (3 * 12 * 32 + 20 * 32)


def test_a_caller_places_layers_where_it_wants() -> None:
    asked: dict[int, torch.Tensor] = {}

    def allocate(layer_id: int, shape: tuple[int, ...]) -> torch.Tensor:
        asked[layer_id] = torch.zeros(shape)
        return asked[layer_id]

    storage = KvStorage(GROUPS, NUM_BLOCKS, 4, torch.float32, "cpu", allocate)
    assert all(storage[i] is asked[i] for i in range(4))


@pytest.mark.parametrize("wrong", [torch.zeros(1), torch.zeros(12, 2, 2, 8, dtype=torch.float64)])
def test_a_layer_of_another_shape_or_dtype_is_a_defect(wrong: torch.Tensor) -> None:
    with pytest.raises(AssertionError):
        KvStorage(GROUPS, NUM_BLOCKS, 4, torch.float32, "cpu", lambda layer_id, shape: wrong)


def test_a_layer_belongs_to_one_group() -> None:
    with pytest.raises(AssertionError, match="one group"):
        KvStorage(GROUPS[:1] * 2, NUM_BLOCKS, 4, torch.float32, "cpu")
