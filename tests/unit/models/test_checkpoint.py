"""Checkpoints by name: folders as they are, and pinned commits from a server on loopback, in processes of their own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tandem.core.errors import CheckpointError
from tandem.models.checkpoint import Checkpoint, Part, open_checkpoint
from tests.checkpoints import make_tiny_pair, shard
from tests.hub import COMMIT, Hub

PINNED = f"org/model@{COMMIT}"
OPEN = """
import sys
from tandem.core.errors import CheckpointError
from tandem.models.checkpoint import Part, open_checkpoint
try:
    checkpoint = open_checkpoint(sys.argv[1], Part[sys.argv[2]])
except CheckpointError as error:
    sys.exit(str(error))
print(checkpoint.name, checkpoint.folder, *sorted({"torch", "numpy", "transformers"} & set(sys.modules)))
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A checkpoint with tokenizer and template, and with what must not be fetched."""
    folder, _ = make_tiny_pair(tmp_path / "hub")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_text(name)
    for name in ("pytorch_model.bin", "modeling_gemma4.py", "original.safetensors", "README.md"):
        (folder / name).write_text("never fetched")
    return folder


@pytest.fixture
def hub(repository: Path) -> Iterator[Hub]:
    with Hub({"org/model": repository}) as hub:
        yield hub


class Reader:
    """Opens checkpoints in new processes with one cache: the client library reads its settings when imported."""

    def __init__(self, home: Path, endpoint: str) -> None:
        self.settings = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint}

    def run(self, reference: str, part: Part, **settings: str) -> "subprocess.CompletedProcess[str]":
        inherited = {name: text for name, text in os.environ.items() if not name.startswith("HF_")}
        paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return subprocess.run(
            [sys.executable, "-c", OPEN, reference, part.name],
            env=inherited | paths | self.settings | settings,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def open(self, reference: str, part: Part, **settings: str) -> Path:
        opened = self.run(reference, part, **settings)
        assert opened.returncode == 0, opened.stderr
        name, folder = opened.stdout.split()  # and no heavy library: a gateway opens checkpoints too
        assert name == "org/model"
        return Path(folder)

    def refusal(self, reference: str, part: Part, **settings: str) -> str:
        refused = self.run(reference, part, **settings)
        assert refused.returncode == 1 and "Traceback" not in refused.stderr, refused.stderr
        (line,) = refused.stderr.splitlines()
        return line


@pytest.fixture
def reader(hub: Hub, tmp_path: Path) -> Reader:
    return Reader(tmp_path / "home", hub.endpoint)


def files(hub: Hub) -> set[str]:
    assert len(set(hub.downloads)) == len(hub.downloads), "nothing is fetched twice"
    return {name.removeprefix("org/model/") for name in hub.downloads}


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "org" / f"model@{COMMIT}"
    folder.mkdir(parents=True)
    for part in Part:
        assert open_checkpoint(str(folder), part) == Checkpoint(folder.name, folder)
    assert open_checkpoint("/nowhere", Part.MODEL) == Checkpoint("nowhere", Path("/nowhere"))


@pytest.mark.parametrize(
    ("revision", "words"),
    [
        ("", "there is no such folder"),
        ("@", "there is no such folder"),
        ("@main", "'main' is no commit"),
        ("@" + COMMIT[:12], "is no commit"),
        ("@" + COMMIT.upper(), "is no commit"),
        ("@" + COMMIT + "\n", "is no commit"),
    ],
)
def test_what_is_not_pinned_is_refused_with_the_way_to_pin(revision: str, words: str) -> None:
    with pytest.raises(
        CheckpointError, match="pin a repository of the hub to one, org/model@ and the 40 hex"
    ) as caught:
        open_checkpoint(f"org/model{revision}", Part.MODEL)
    assert words in str(caught.value)


def test_only_what_a_reader_needs_is_fetched_and_once(hub: Hub, reader: Reader, repository: Path) -> None:
    folder = reader.open(PINNED, Part.CONFIG)
    assert files(hub) == {"config.json"}
    assert reader.open(PINNED, Part.TEXT) == folder
    assert files(hub) == {"config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert reader.open(PINNED, Part.MODEL) == folder
    assert files(hub) >= {"generation_config.json", "model.safetensors"} and len(hub.downloads) == 6
    for file in folder.iterdir():
        assert file.read_bytes() == (repository / file.name).read_bytes()

    num_requests = hub.num_requests
    for part in Part:
        assert reader.open(PINNED, part) == folder
    assert hub.num_requests == num_requests, "what lies in the cache is not asked for"
    for part in Part:
        assert reader.open(PINNED, part, HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:1") == folder


def test_shards_are_fetched_by_their_index(hub: Hub, reader: Reader, repository: Path) -> None:
    tensors = load_file(repository / "model.safetensors")
    shard(repository)
    (repository / "generation_config.json").unlink()
    folder = reader.open(PINNED, Part.MODEL)
    shards = {"model-1-of-2.safetensors", "model-2-of-2.safetensors"}
    assert files(hub) == {"config.json", "model.safetensors.index.json", *shards}
    assert {name for file in shards for name in load_file(folder / file)} == set(tensors)
    num_requests = hub.num_requests
    assert reader.open(PINNED, Part.MODEL) == folder
    assert hub.num_requests == num_requests, "that a file is missing is known, too"
    # A cache that somebody else filled holds nothing of what is missing.
    shutil.rmtree(folder.parent.parent / ".no_exist")
    assert reader.open(PINNED, Part.MODEL, HF_HUB_OFFLINE="1") == folder


def test_a_token_is_found_in_the_usual_places(hub: Hub, reader: Reader, tmp_path: Path) -> None:
    hub.token = "secret"
    assert "must be applied for" in reader.refusal(PINNED, Part.CONFIG)
    assert reader.open(PINNED, Part.CONFIG, HF_TOKEN="secret")
    (tmp_path / "home" / "token").write_text("secret")
    assert reader.open(PINNED, Part.TEXT)


@pytest.mark.parametrize(
    ("reference", "settings", "words"),
    [
        (f"org/other@{COMMIT}", {}, f"org/other@{COMMIT}: does not exist, or is private: set HF_TOKEN"),
        (f"org/model@{'f' * 40}", {}, "has no such commit"),
        (PINNED, {"HF_HUB_OFFLINE": "1"}, f"{PINNED}: has no config.json in the cache, and HF_HUB_OFFLINE is set"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(
    reference: str, settings: dict[str, str], words: str, reader: Reader
) -> None:
    assert words in reader.refusal(reference, Part.MODEL, **settings)


def test_a_repository_without_a_file_is_refused(reader: Reader, repository: Path) -> None:
    (repository / "tokenizer.json").unlink()
    assert reader.refusal(PINNED, Part.TEXT) == f"{PINNED}: has no tokenizer.json"
    (repository / "model.safetensors").unlink()
    assert reader.refusal(PINNED, Part.MODEL) == f"{PINNED}: has no model.safetensors.index.json"
