"""Clusters of equal size for a head over centroids: k-means whose clusters are all full.

    repeat: give every row a cluster, each cluster exactly its share (`_assign`)
            move every centroid to the mean of its rows

The assignment is a stable matching (Gale and Shapley, "College admissions and the stability of marriage", 1962): rows
ask for the nearest centroid, a centroid keeps the nearest that ask and refuses the rest, who ask elsewhere. Distances
are made for some rows at a time, so that no matrix of all rows by all centroids exists.
"""

from collections.abc import Callable

import torch

Told = Callable[[int, float], None]  # iteration, mean distance of a row to its centroid

_CHUNK_DISTANCES = 1 << 24  # made at a time: 64 MB


def balanced_clusters(
    rows: torch.Tensor,  # [V, d] float32
    num_clusters: int,  # divides V
    iterations: int,
    seed: int = 0,
    tell: Told | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:  # centroids [num_clusters, d], members [num_clusters, V / num_clusters] int64
    """Clusters rows; the same arguments give the same clusters on the same machine.

    Args:
        rows: finite numbers.
        num_clusters: all of one size.
        iterations: at least 1.
        seed: picks the rows at which centroids start.
        tell: told how far it has come.
    """
    num_rows = rows.shape[0]
    assert num_rows % num_clusters == 0 and iterations >= 1
    generator = torch.Generator().manual_seed(seed)
    centroids = rows[torch.randperm(num_rows, generator=generator)[:num_clusters]]
    for iteration in range(1, iterations + 1):
        owners, distances = _assign(rows, centroids)
        members = owners.argsort(stable=True).view(num_clusters, -1)
        centroids = torch.stack([rows[of_cluster].mean(0) for of_cluster in members])
        if tell:
            tell(iteration, float(distances.mean()))
    return centroids, members


def _assign(
    rows: torch.Tensor,  # [V, d]
    centroids: torch.Tensor,  # [C, d]
) -> tuple[torch.Tensor, torch.Tensor]:  # cluster of each row [V] int64, its distance [V]
    """Every cluster gets V / C rows; no row and no cluster would both rather have each other."""
    num_rows, num_clusters = rows.shape[0], centroids.shape[0]
    size = num_rows // num_clusters
    owners = torch.zeros(num_rows, dtype=torch.int64)
    distances = torch.zeros(num_rows)
    reach = torch.full((num_clusters,), torch.inf)  # how near a row must be for a cluster to take it
    asking = torch.arange(num_rows)
    while len(asking):
        for some in torch.split(asking, max(1, _CHUNK_DISTANCES // num_clusters)):
            to_all = torch.cdist(rows[some], centroids)
            nearest = to_all.masked_fill_(to_all >= reach, torch.inf).min(1)
            distances[some], owners[some] = nearest.values, nearest.indices
        by_distance = distances.argsort(stable=True)
        order = by_distance[owners[by_distance].argsort(stable=True)]  # cluster after cluster, the nearest first
        counts = owners.bincount(minlength=num_clusters)
        starts = counts.cumsum(0) - counts
        is_refused = torch.arange(num_rows) - starts[owners[order]] >= size
        asking = order[is_refused]
        is_full = counts >= size
        reach[is_full] = distances[order[(starts + size - 1)[is_full]]]
    return owners, distances
