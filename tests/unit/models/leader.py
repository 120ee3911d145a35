"""The leader's share of targets, and the other ranks as processes."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from tandem.models.gemma4.leading import Told, lead
from tandem.models.gemma4.target import Gemma4Target
from tandem.models.gemma4.weights import load_target
from tandem.models.ranks import LEADER, ProcessRanks
from tests.unit.attention.device_planned import DevicePlanned


def load_share(folder: Path, rank: int, size: int, device: str) -> tuple[Gemma4Target, ProcessRanks]:
    """A rank's share of `folder/target`, once all ranks have met. On a CPU it plans rounds as on a GPU.

    On "cuda", each rank has a device; where there are too few, all have the same, and meet as ranks of a CPU do.
    """
    ranks, meeting_at = ProcessRanks(rank, size), torch.device("cpu")
    if device == "cuda" and torch.cuda.device_count() >= size:
        torch.cuda.set_device(rank)
        meeting_at = torch.device("cuda", rank)
    target = load_target(folder / "target", torch.float32, device, ranks=ranks)
    if device == "cpu":
        target.backend = DevicePlanned(target.config.num_attention_heads)
    ranks.join(folder / f"ranks-{size}", meeting_at)
    return target, ranks


class Leader:
    """One target after another, in the order of `folders`."""

    def __init__(self, size: int, device: str, folders: Sequence[Path]) -> None:
        self.num_rounds_ahead = 0
        self._size, self._device = size, device
        self._followers = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.unit.models.following_rank"),
                    *(str(rank), str(size), device, *map(str, folders)),
                ],
                stdin=subprocess.PIPE,
                text=True,
            )
            for rank in range(1, size)
        ]

    @contextmanager
    def target(self, folder: Path) -> Iterator[Gemma4Target]:
        """The next target; whole steps of it are computed until the end of the context."""
        target, ranks = load_share(folder, LEADER, self._size, self._device)
        lead(target, ranks, self._tell)
        yield target
        self._tell([])
        ranks.leave()

    def _tell(self, numbers: Sequence[int]) -> None:
        self.num_rounds_ahead += numbers[:1] == [Told.ROUND]
        for follower in self._followers:
            assert follower.stdin
            print(*map(int, numbers), file=follower.stdin, flush=True)

    def close(self) -> None:
        """The others end by themselves."""
        for follower in self._followers:
            follower.communicate(timeout=20)
            assert follower.returncode == 0

    def kill(self) -> None:
        """Whatever became of them, they end."""
        for follower in self._followers:
            follower.kill()
            follower.wait()
