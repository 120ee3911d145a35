"""The figures as a picture. Drawn only where one is asked for: matplotlib takes a second to import."""

from collections.abc import Sequence
from typing import Any

from tandem.cli.bench.preset.results import Measured, PresetResults
from tandem.core.errors import ConfigError

_WIDTH, _HEIGHT = 11.0, 4.5  # inches


def require_matplotlib() -> None:
    """Raises ConfigError unless matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise ConfigError("matplotlib is not installed: install tandem[bench], or leave --plot out") from None


def write_plot(results: PresetResults, path: str) -> None:
    """Tokens a second over the batch, and the time of a round beside its floor."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    FigureCanvasAgg(figure)
    rates, rounds = figure.subplots(1, 2)
    figure.suptitle(f"{results.shape}, {results.config.dtype}, {results.device.name}")
    _draw_rates(rates, results)
    _draw_rounds(rounds, results)
    figure.savefig(path, format="png", dpi=150)


def _draw_rates(axes: Any, results: PresetResults) -> None:
    first = results.config.prompt_list[0]
    for way in dict.fromkeys(one.way for one in results.measured):
        points = [one for one in results.measured if one.way == way and one.kind.prompt_tokens == first]
        batches = [one.kind.batch for one in points]
        axes.plot(batches, [one.median("tokens_per_second") for one in points], marker="o", label=way.name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(results.config.batch_list, [str(batch) for batch in results.config.batch_list])
    axes.set_xlabel(f"streams at a time, prompts of {first} tokens")
    axes.set_ylabel("tokens a second")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()


def _draw_rounds(axes: Any, results: PresetResults) -> None:
    """Bars from the bottom: the parts of a round where they are known, and a line at its floor."""
    names = [f"{one.way.name}\n{one.kind.name}" for one in results.measured]
    places = range(len(names))
    floors = [one.floor.milliseconds(results.device.read_bytes_per_second) for one in results.measured]
    before = [0.0] * len(names)
    for name, heights in _parts(results.measured).items():
        if not any(heights):
            continue
        axes.barh(places, heights, left=before, label=name)
        before = [one + other for one, other in zip(before, heights, strict=True)]
    axes.scatter(floors, places, marker="|", s=200, color="black", label="floor by bytes", zorder=3)
    axes.set_yticks(places, names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("ms a round")
    axes.legend(fontsize=7)


def _parts(measured: Sequence[Measured]) -> dict[str, list[float]]:
    """Heights of each part; a round that was not profiled is in one piece."""
    return {
        "verifier": [one.parts.verifier_ms if one.parts else 0.0 for one in measured],
        "drafter": [one.parts.drafter_ms if one.parts else 0.0 for one in measured],
        "rest": [one.parts.rest_ms if one.parts else 0.0 for one in measured],
        "whole round": [0.0 if one.parts else one.median("ms_per_round") for one in measured],
    }
