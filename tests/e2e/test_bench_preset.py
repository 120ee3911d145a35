"""`tandem bench --preset` on a tiny shape: real processes, weights that nobody trained, drafts accepted by schedule."""

import json
import sys

import pytest

from tandem.cli.main import main
from tests.checkpoints import VARIANTS, make_tiny_pair
from tests.e2e.conftest import run_process, tandem

PNG = b"\x89PNG\r\n\x1a\n"
SMALL = (
    "--device=cpu",
    "--dtype=float32",
    "--batches=1,2",
    "--max-tokens=24",
    "--num-speculative-tokens=4",
    "--runs=2",
)


@pytest.fixture(scope="module")
def shape(tmp_path_factory):
    """A folder with the configurations of a pair and none of its weights."""
    folder = tmp_path_factory.mktemp("shape") / "tiny"
    for part in make_tiny_pair(folder, **VARIANTS["26b-a4b"]):
        (part / "model.safetensors").unlink()
    return folder


def bench(shape, *options):
    return tandem(
        "bench", f"--preset={shape}", "--random-weights", "--acceptance-length=3.5", *SMALL, *options, timeout=110
    )


def test_figures_of_every_way(shape, tmp_path):
    figures_path, plot_path = tmp_path / "figures.json", tmp_path / "plot.png"
    code, out, err = bench(
        shape,
        "--drafters=split,inprocess,none",
        "--prompt-tokens=12,40",
        "--compare=transformers",
        f"--json={figures_path}",
        f"--plot={plot_path}",
    )
    assert code == 0, err
    figures = json.loads(figures_path.read_text())
    assert [one["name"] for one in figures["measured"]] == [
        f"{way}, {kind}"
        for way in ("split", "inprocess", "none")
        for kind in ("batch 1, prompt 12", "batch 2, prompt 12", "batch 1, prompt 40")
    ]
    for one in figures["measured"]:
        wanted = 1.0 if one["way"]["drafter"] == "none" else 3.5
        assert abs(one["medians"]["acceptance_length"] - wanted) < 0.5, "random drafts were accepted as scheduled"
        assert len(one["runs"]) == 2 and one["floor"]["share"] > 0
        assert one["name"] in out and one["parts"] is None
    # Where the reader was held up, a text seems to come at once.
    assert sum(one["floor"]["share"] < 1 for one in figures["measured"]) > len(figures["measured"]) / 2
    assert set(figures["memory"]["split"]["host"]) == {"gateway", "verifier", "drafter"}
    assert all(size > 1e6 for memory in figures["memory"].values() for size in memory["host"].values())
    assert plot_path.read_bytes().startswith(PNG)
    assert "goal" not in out, "goals are for one shape on one card"
    assert "split: all is warm" in err
    assert "transformers, plain, batch 1, prompt 12" in out and "transformers, assisted, batch 1, prompt 12" in out


@pytest.mark.parametrize("command", ["verifier", "drafter", "up", "demo", "gateway"])
@pytest.mark.parametrize("option", ["--acceptance-length=5", "--random-weights", "--preset=gemma-4-31b"])
def test_a_serving_process_refuses_the_options(command, option, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, option])
    assert ended.value.code == 2 and f"unknown argument {option}" in capsys.readouterr().err


def test_no_variable_of_the_environment_stands_for_them(monkeypatch, capsys):
    monkeypatch.setenv("TANDEM_ACCEPTANCE_LENGTH", "5")
    assert main(["verifier", "--target=nowhere"]) == 2
    assert "unknown environment variable TANDEM_ACCEPTANCE_LENGTH" in capsys.readouterr().err


def test_matplotlib_stays_away_until_a_plot_is_asked_for():
    code, _, err = run_process(
        [sys.executable, "-c", "import tandem.cli.bench.preset.command, sys; assert 'matplotlib' not in sys.modules"]
    )
    assert code == 0, err


def test_a_shape_without_random_weights_is_refused(shape):
    code, _, err = tandem("bench", f"--preset={shape}")
    assert code == 2 and "--random-weights" in err
