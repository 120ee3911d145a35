"""Balanced clusters, and the checkpoint that they make of a dense drafter."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tandem.core.errors import CheckpointError
from tandem.models.gemma4 import centroids
from tandem.models.gemma4.centroid_checkpoint import write_with_centroids
from tandem.models.gemma4.centroids import balanced_clusters
from tandem.models.gemma4.config import read_target_config
from tandem.models.gemma4.drafter_config import CentroidConfig, read_drafter_config
from tandem.models.gemma4.weights import load_drafter
from tests.checkpoints import make_tiny_pair


def rows(count: int, width: int = 8) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize(("count", "num_clusters"), [(60, 1), (60, 4), (60, 60), (512, 16)])
def test_clusters_are_of_one_size_and_centroids_their_means(count: int, num_clusters: int) -> None:
    table = rows(count)
    means, members = balanced_clusters(table, num_clusters, 3)
    assert members.shape == (num_clusters, count // num_clusters)
    assert members.flatten().sort().values.tolist() == list(range(count))
    torch.testing.assert_close(means, table[members].mean(1))


def test_no_row_and_no_cluster_would_rather_have_each_other() -> None:
    table, start = rows(96), rows(8)
    owners, distances = centroids._assign(table, start)
    to_all = torch.cdist(table, start)
    torch.testing.assert_close(distances, to_all.gather(1, owners[:, None])[:, 0])
    furthest = torch.stack([distances[owners == cluster].max() for cluster in range(8)])
    rather = (to_all < distances[:, None] - 1e-5) & (to_all < furthest - 1e-5)
    assert not rather.any()


def test_groups_that_are_there_are_found() -> None:
    """Four groups far apart, in any order."""
    centers = 100.0 * torch.eye(4, 8)
    group = torch.randperm(48, generator=torch.Generator().manual_seed(0)) % 4
    _, members = balanced_clusters(centers[group] + rows(48), 4, 20, seed=1)
    assert all(len(set(group[of_cluster].tolist())) == 1 for of_cluster in members)


def test_tokens_that_are_alike_are_shared_out() -> None:
    """Unused tokens often have one and the same row."""
    _, members = balanced_clusters(torch.ones(64, 8), 8, 2)
    assert members.flatten().sort().values.tolist() == list(range(64))


def test_distances_are_made_for_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    table = rows(512)
    means, members = balanced_clusters(table, 16, 3)
    largest = 0
    cdist = torch.cdist

    def record(some: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, len(some) * len(others))
        return cdist(some, others)

    monkeypatch.setattr(torch, "cdist", record)
    monkeypatch.setattr(centroids, "_CHUNK_DISTANCES", 160)
    again, _ = balanced_clusters(table, 16, 3)
    assert largest == 160
    torch.testing.assert_close(again, means)


def test_a_seed_gives_the_same_clusters() -> None:
    one, same, other = (balanced_clusters(rows(512), 16, 3, seed)[1] for seed in (5, 5, 6))
    assert one.equal(same) and not one.equal(other)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return make_tiny_pair(tmp_path)


def test_a_checkpoint_is_made_beside_its_source(pair: tuple[Path, Path], tmp_path: Path) -> None:
    target_path, source = pair
    before = {file.name: file.read_bytes() for file in source.iterdir()}
    output, told = tmp_path / "new" / "drafter", []
    write_with_centroids(source, output, CentroidConfig(16, 3), 4, tell=lambda *numbers: told.append(numbers))
    assert {file.name: file.read_bytes() for file in source.iterdir()} == before
    assert [iteration for iteration, _ in told] == [1, 2, 3, 4]
    assert told[-1][1] < told[0][1]
    assert read_drafter_config(output).centroids == CentroidConfig(16, 3)
    old, new = load_file(source / "model.safetensors"), load_file(output / "model.safetensors")
    assert all(new.pop(name).equal(tensor) for name, tensor in old.items())
    assert set(new) == {"masked_embedding.centroids.weight", "masked_embedding.token_ordering"}
    assert (output / "generation_config.json").read_bytes() == before["generation_config.json"]
    drafter = load_drafter(output, read_target_config(target_path), torch.float32, "cpu", None)
    assert drafter.config.centroids


def test_transformers_reads_it(pair: tuple[Path, Path], tmp_path: Path) -> None:
    from transformers import Gemma4AssistantForCausalLM

    write_with_centroids(pair[1], tmp_path / "new", CentroidConfig(16, 3), 2)
    theirs, report = Gemma4AssistantForCausalLM.from_pretrained(tmp_path / "new", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    ordering = load_file(tmp_path / "new" / "model.safetensors")["masked_embedding.token_ordering"]
    assert theirs.masked_embedding.token_ordering.equal(ordering)


def test_what_cannot_be_made_is_one_line(pair: tuple[Path, Path], tmp_path: Path) -> None:
    source, output = pair[1], tmp_path / "new"
    for sizes, words in (((24, 3), "num_centroids = 24 must divide"), ((16, 17), "top_k = 17 must be at most")):
        with pytest.raises(CheckpointError, match=words):
            write_with_centroids(source, output, CentroidConfig(*sizes), 1)
    for there in (source, tmp_path):
        with pytest.raises(CheckpointError, match="is there already"):
            write_with_centroids(source, there, CentroidConfig(16, 3), 1)
    write_with_centroids(source, output, CentroidConfig(16, 3), 1)
    with pytest.raises(CheckpointError, match="has centroids already"):
        write_with_centroids(output, tmp_path / "newer", CentroidConfig(16, 3), 1)
    tensors = load_file(source / "model.safetensors")
    tensors["model.embed_tokens.weight"][5, 5] = torch.nan
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"embed_tokens\.weight must be there, .* and finite"):
        write_with_centroids(source, tmp_path / "newer", CentroidConfig(16, 3), 1)
    assert not (tmp_path / "newer").exists()
    assert json.loads((source / "config.json").read_text())["use_ordered_embeddings"] is False
