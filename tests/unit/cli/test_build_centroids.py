import pytest

from tandem.cli.main import main
from tandem.models.gemma4.drafter_config import CentroidConfig, read_drafter_config
from tests.checkpoints import make_tiny_pair


@pytest.fixture
def source(tmp_path):
    return make_tiny_pair(tmp_path / "pair")[1]


def test_it_writes_a_checkpoint_and_says_what_a_draft_costs(source, tmp_path, capsys):
    output = tmp_path / "new"
    arguments = ["--num-centroids=16", "--centroid-top-k=3", "--iterations=2"]
    assert main(["build-centroids", f"--draft-model={source}", f"--output={output}", *arguments]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{output}: a draft scores 16 centroids and 12 of 64 tokens\n"
    assert shown.err.count("\n") == 2 and "iteration 2 of 2" in shown.err
    assert read_drafter_config(output).centroids == CentroidConfig(16, 3)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--num-centroids=0", "--num-centroids must be at least 1"),
        ("--iterations=0", "--iterations must be at least 1"),
        ("--seed=-1", "--seed must be at least 0"),
        ("--num-centroids=24", "num_centroids = 24 must divide vocab_size = 64"),
        ("--output=.", "is there already"),
        ("--draft-model=nowhere", "not a checkpoint folder"),
    ],
)
def test_what_cannot_be_built_is_one_line_and_exit_code_2(argument, words, source, tmp_path, capsys):
    common = [f"--draft-model={source}", f"--output={tmp_path / 'new'}", "--num-centroids=16", "--centroid-top-k=3"]
    assert main(["build-centroids", *common, argument]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("tandem build-centroids: error: ") and words in shown and shown.count("\n") == 1
