"""`python -m tests.unit.models.following_rank RANK SIZE FOLDER...`: follows a leader through one target after another.

Steps come on stdin, a line of numbers each; an empty line ends a target, as does the end of stdin.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from tandem.kv_cache.storage import KvStorage
from tandem.models.gemma4.leading import follow
from tandem.models.gemma4.weights import load_target
from tandem.models.ranks import ProcessRanks
from tests.unit.models.paged import BLOCK_SIZE

NUM_BLOCKS = 2048


def steps() -> Iterator[Sequence[int]]:
    while numbers := [int(word) for word in sys.stdin.readline().split()]:
        yield numbers


def main() -> None:
    torch.set_num_threads(1)
    rank, size, *folders = sys.argv[1:]
    for folder in map(Path, folders):
        ranks = ProcessRanks(int(rank), int(size))
        target = load_target(folder / "target", torch.float32, "cpu", ranks=ranks)
        blocks = {group.name: NUM_BLOCKS for group in target.kv_groups}
        storage = KvStorage(target.stored_groups, blocks, BLOCK_SIZE, torch.float32, "cpu")
        ranks.join(folder / f"ranks-{size}", torch.device("cpu"))
        follow(target, storage, steps())
        ranks.leave()


if __name__ == "__main__":
    main()
