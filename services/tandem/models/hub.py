"""Files of one commit of a repository on the Hugging Face Hub, or on a server that speaks like it.

The client library brings what its users know: the cache and its location, `HF_ENDPOINT`, `HF_HUB_OFFLINE`, and the
token of `HF_TOKEN` or of a login. A file of a commit never changes, so what lies in the cache is not asked for again.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub

from tandem.core.errors import CheckpointError

logger = logging.getLogger(__name__)

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REFERENCE = re.compile(rf"({_NAME}/{_NAME})(?:@(.*))?", re.DOTALL)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubCommit:
    """One commit of one repository."""

    repository: str  # organisation/name
    commit: str  # 40 hexadecimal digits

    @staticmethod
    def parse(reference: str) -> "HubCommit | None":
        """The commit that `organisation/name@commit` names; None for what does not look like a repository.

        Raises:
            CheckpointError: the repository is not pinned to a commit: its content could change between two starts.
        """
        found = _REFERENCE.fullmatch(reference)
        if found is None:
            return None
        repository, commit = found[1], found[2]
        if commit is None or not _COMMIT.fullmatch(commit):
            what = f"{commit!r} is no commit" if commit else "there is no such folder"
            raise CheckpointError(
                f"{reference}: {what}; pin a repository of the hub to one, {repository}@ and the 40 hexadecimal "
                "digits that its page shows under Files, History"
            )
        return HubCommit(repository, commit)

    def fetch(self, name: str) -> Path:
        """Where a file of the commit lies in the cache, downloaded if need be.

        Args:
            name: the file's path in the repository.

        Raises:
            CheckpointError: the file cannot be had, for a reason that the message names.
        """
        path = self.find(name)
        if path is None:
            where = " in the cache, and HF_HUB_OFFLINE is set" if huggingface_hub.is_offline_mode() else ""
            raise self._error(f"has no {name}{where}")
        return path

    def find(self, name: str) -> Path | None:
        """As `fetch`, but None if the commit has no such file; offline, if the cache has none."""
        from huggingface_hub import errors  # here, for it takes its time, and most checkpoints are folders
        from huggingface_hub.utils.tqdm import disable_progress_bars

        cached = huggingface_hub.try_to_load_from_cache(self.repository, name, revision=self.commit)
        if isinstance(cached, str):
            return Path(cached)
        is_known_to_be_absent = cached is not None
        if is_known_to_be_absent or huggingface_hub.is_offline_mode():
            return None
        disable_progress_bars()  # a log is no terminal
        logger.info("fetching %s of %s@%s", name, self.repository, self.commit[:12])
        try:
            return Path(huggingface_hub.hf_hub_download(self.repository, name, revision=self.commit))
        except errors.RemoteEntryNotFoundError:
            return None
        except errors.GatedRepoError:
            raise self._error("must be applied for: accept its terms on its page, then set HF_TOKEN") from None
        except errors.RepositoryNotFoundError:
            raise self._error("does not exist, or is private: set HF_TOKEN to a token that may read it") from None
        except errors.RevisionNotFoundError:
            raise self._error("has no such commit") from None
        except errors.LocalEntryNotFoundError as error:
            reason = str(error.__cause__ or error).partition("\n")[0]
            raise self._error(f"{name} is not in the cache and cannot be downloaded: {reason}") from None
        except Exception as error:  # a network has many ways to fail, and so has a disk
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise self._error(f"{name} cannot be downloaded: {reason}") from None

    def _error(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.repository}@{self.commit}: {what}")
