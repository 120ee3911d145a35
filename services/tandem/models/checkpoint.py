"""A checkpoint by the name that a user gives it: a folder of this machine, or a pinned commit on the hub.

Only the files that its reader needs are downloaded, by their exact names: configuration, tokenizer, chat template and
safetensors. Code and pickles that a repository may hold besides are never fetched.
"""

import enum
from dataclasses import dataclass
from pathlib import Path

from tandem.models.hub import HubCommit
from tandem.models.weight_files import INDEX_FILE, SINGLE_FILE, weight_files


class Part(enum.Enum):
    """What its reader needs of a checkpoint."""

    CONFIG = "config"  # the shape of the network
    MODEL = "model"  # shape, defaults of sampling, weights
    TEXT = "text"  # tokenizer and chat template


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files lie in a folder."""

    name: str  # for people, and the model's name by default
    folder: Path


def open_checkpoint(reference: str, part: Part) -> Checkpoint:
    """Finds a checkpoint; downloads what is missing of the part, which may take long.

    Args:
        reference: a folder, or `organisation/name@commit`.
        part: what the caller will read.

    Raises:
        CheckpointError: a repository without a commit, or files that cannot be had. A folder is taken as it is.
    """
    folder = Path(reference)
    commit = None if folder.is_dir() else HubCommit.parse(reference)
    if commit is None:
        return Checkpoint(folder.resolve().name, folder)
    fetched = _fetch(commit, part)
    return Checkpoint(commit.repository, fetched)


def _fetch(commit: HubCommit, part: Part) -> Path:
    """Brings a part's files; returns their folder."""
    if part is Part.TEXT:
        commit.find("tokenizer_config.json")
        commit.find("chat_template.jinja")
        return commit.fetch("tokenizer.json").parent
    folder = commit.fetch("config.json").parent
    if part is Part.MODEL:
        commit.find("generation_config.json")
        if commit.find(SINGLE_FILE) is None:
            commit.fetch(INDEX_FILE)
            for name in weight_files(folder):
                commit.fetch(name)
    return folder
