"""Which kernels a replay of a captured graph is made of, and how long each holds it up."""

from collections import Counter, defaultdict
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

PROFILED = 4  # replays


class Kernels:
    """What the device did in some replays."""

    def __init__(self, replay: Callable[[], object]) -> None:
        replay()
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(PROFILED):
                replay()
            torch.cuda.synchronize()
        spans = sorted(
            (event.time_range.start, event.time_range.end, event.name)
            for event in profiler.events() or ()
            if event.device_type == torch.autograd.DeviceType.CUDA
        )
        self.counts = Counter(name for _, _, name in spans)
        self.added: defaultdict[str, float] = defaultdict(float)  # microseconds beyond the end of those before
        self.idle, reached = 0.0, spans[0][0]
        for start, end, name in spans:
            self.idle += max(0.0, start - reached)
            self.added[name] += max(0.0, end - max(start, reached))
            reached = max(reached, end)

    def lines(self, top: int) -> list[str]:
        """The longest ones first, each a round."""
        names = sorted(self.added, key=self.added.__getitem__, reverse=True)
        rest = sum(self.added[name] for name in names[top:])
        return [
            f"  {sum(self.counts.values()) / PROFILED:.0f} launches, busy {sum(self.added.values()) / PROFILED:.0f} us,"
            f" idle {self.idle / PROFILED:.0f} us",
            *(
                f"  {self.added[name] / PROFILED:9.1f} us {self.counts[name] / PROFILED:7.1f} x "
                f"{self.added[name] / self.counts[name]:7.1f} us  {short(name)}"
                for name in names[:top]
            ),
            f"  {rest / PROFILED:9.1f} us {sum(self.counts[name] for name in names[top:]) / PROFILED:7.1f} x others",
        ]


def short(name: str) -> str:
    """A kernel's name without namespaces and most of its arguments."""
    return name.removeprefix("void ").replace("at::native::", "").replace("(anonymous namespace)::", "")[:70]
