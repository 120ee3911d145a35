"""`python -m tests.unit.models.following_rank RANK SIZE DEVICE FOLDER...`: follows a leader through several targets.

Steps come on stdin, a line of numbers each; an empty line ends a target, as does the end of stdin.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from tandem.engine.graphs import Graphs
from tandem.kv_cache.storage import KvStorage
from tandem.models.gemma4.following import Follower
from tests.unit.models.leader import load_share
from tests.unit.models.paged import BLOCK_SIZE

NUM_BLOCKS = 2048


def steps() -> Iterator[Sequence[int]]:
    while numbers := [int(word) for word in sys.stdin.readline().split()]:
        yield numbers


def main() -> None:
    torch.set_num_threads(1)
    rank, size, device, *folders = sys.argv[1:]
    for folder in map(Path, folders):
        target, ranks = load_share(folder, int(rank), int(size), device)
        blocks = {group.name: NUM_BLOCKS for group in target.kv_groups}
        storage = KvStorage(target.stored_groups, blocks, BLOCK_SIZE, torch.float32, device)
        spare_blocks = {name: count - 1 for name, count in blocks.items()}
        Follower(target, storage, ranks, spare_blocks, Graphs(torch.device(device))).follow(steps())
        ranks.leave()


if __name__ == "__main__":
    main()
