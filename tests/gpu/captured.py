"""Work as a captured graph, and how long it takes."""

import statistics
from collections.abc import Callable

import torch


def captured(work: Callable[[], object]) -> Callable[[], object]:
    """Replays it as a graph, having run it."""
    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def milliseconds(work: Callable[[], object], num_turns: int = 11) -> float:
    """Median of several turns of a captured graph."""
    replay = captured(work)
    times = []
    for _ in range(num_turns):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)
