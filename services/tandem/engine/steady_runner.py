"""Launches steady rounds, and brings back what came of them.

What the host tells a round and what it reads of it pass through pinned memory, a buffer for each of the rounds that may
be under way, so that no call here waits but `Launched.wait`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from tandem.engine.graphs import Graphs
from tandem.engine.limits import ROUNDS_AHEAD
from tandem.engine.steady_round import Member, RoundShape, SteadyRound

_NUM_BUFFERS = ROUNDS_AHEAD + 1  # a buffer is written again only when its round has been read


@dataclass
class _Buffer:
    """Pinned memory of one round under way."""

    control: torch.Tensor  # [N] int64
    results: torch.Tensor  # [N] int64
    events: list[torch.cuda.Event] = field(default_factory=list)  # before drafting, before the step, at the end


@dataclass(frozen=True)
class Launched:
    """A round that the device works on, or has done."""

    shape: RoundShape
    num_drafts: int  # that each sequence was given, of as many as `shape` has room for
    _buffer: _Buffer

    def wait(self) -> list[list[int]]:
        """Waits for the round: for each sequence the target's tokens, then how many drafts stand."""
        if self._buffer.events:
            self._buffer.events[-1].synchronize()
        width = self.shape.num_rows + 1
        rows: list[list[int]] = self._buffer.results[: self.shape.batch * width].view(-1, width).tolist()
        return rows

    def seconds(self) -> tuple[float, float]:
        """Of a round that was waited for: what its drafts took, and its step. Nothing where there is no clock."""
        if not self._buffer.events:
            return 0.0, 0.0
        began, drafted, ended = self._buffer.events
        return began.elapsed_time(drafted) / 1e3, drafted.elapsed_time(ended) / 1e3


class SteadyRunner:
    """A `SteadyRound` behind graphs and buffers."""

    def __init__(self, program: SteadyRound, shapes: Sequence[RoundShape]) -> None:
        """Allocates what rounds of any of `shapes` need."""
        self._program = program
        self._is_cuda = program.device.type == "cuda"
        self._graphs = Graphs(program.device)
        control_size = max(map(program.control_size, shapes))
        results_size = max(shape.batch * (shape.num_rows + 1) for shape in shapes)
        self._control = torch.zeros(control_size, dtype=torch.int64, device=program.device)
        self._results = torch.zeros(results_size, dtype=torch.int64, device=program.device)
        self._buffers = [self._make_buffer(control_size, results_size) for _ in range(_NUM_BUFFERS)]
        self._number = 0

    def capture(self, shape: RoundShape) -> None:
        """Makes rounds of a shape cheap to launch. No sequence may be decoding: it runs on the spare slot."""
        spare = Member(self._program.spare_slot, 0, ())
        self._control[: self._program.control_size(shape)].copy_(
            torch.tensor(self._program.pack(shape, [spare] * shape.batch, 0))
        )
        self._program.announce(shape, to_capture=True)
        self._graphs.capture(shape, self._bind(shape))

    def close(self) -> None:
        """Captured rounds are no longer needed, nor is what comes of one that is under way."""
        self._graphs.clear()

    def launch(
        self, shape_of: Callable[[int], RoundShape], members: Sequence[Member], draft: Callable[[], int]
    ) -> Launched:
        """Asks for drafts, then for the round over them; returns at once.

        Args:
            shape_of: the round's shape, by the number of drafts that each sequence is given: it has room for them.
            members: the sequences.
            draft: enqueues their drafts, and returns how many each is given.
        """
        self._number += 1
        buffer = self._buffers[self._number % _NUM_BUFFERS]
        self._record(buffer, 0)
        num_drafts = draft()
        shape = shape_of(num_drafts)
        self._record(buffer, 1)
        numbers = self._program.pack(shape, members, num_drafts)
        buffer.control[: len(numbers)] = torch.tensor(numbers)
        self._control[: len(numbers)].copy_(buffer.control[: len(numbers)], non_blocking=True)
        self._program.announce(shape)
        self._graphs.run(shape, self._bind(shape))
        size = shape.batch * (shape.num_rows + 1)
        buffer.results[:size].copy_(self._results[:size], non_blocking=True)
        self._record(buffer, 2)
        return Launched(shape, num_drafts, buffer)

    def _bind(self, shape: RoundShape) -> Callable[[], None]:
        control = self._control[: self._program.control_size(shape)]
        results = self._results[: shape.batch * (shape.num_rows + 1)].view(shape.batch, -1)
        return lambda: self._program.run(shape, control, results)

    def _make_buffer(self, control_size: int, results_size: int) -> _Buffer:
        control, results = (
            torch.zeros(size, dtype=torch.int64, pin_memory=self._is_cuda) for size in (control_size, results_size)
        )
        events = [_timed_event() for _ in range(3)] if self._is_cuda else []
        return _Buffer(control, results, events)

    def _record(self, buffer: _Buffer, number: int) -> None:
        if buffer.events:
            buffer.events[number].record()


def _timed_event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
