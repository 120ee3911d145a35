"""Device programs captured as CUDA graphs: replayed, they cost the host one call whatever they hold."""

from collections.abc import Callable, Hashable

import torch

Program = Callable[[], None]  # reads and writes tensors that stay where they are


class Graphs:
    """Captured programs by key. All share one pool of memory, for they run one after the other.

    Where there is no CUDA, and for keys that were not captured, programs just run.
    """

    def __init__(self, device: torch.device) -> None:
        """Has captured nothing."""
        self._device = device
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def capture(self, key: Hashable, program: Program) -> None:
        """Captures a program, having run it once: what is made at first use is then there."""
        if self._pool is None:
            return
        program()
        torch.cuda.synchronize(self._device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            program()
        self._graphs[key] = graph

    def clear(self) -> None:
        """Forgets all. A captured program keeps what it uses: ranks cannot part while there is one."""
        for graph in self._graphs.values():
            graph.reset()
        self._graphs.clear()

    def run(self, key: Hashable, program: Program) -> None:
        """Runs a program, as a graph if it was captured."""
        graph = self._graphs.get(key)
        if graph is None:
            program()
        else:
            graph.replay()
