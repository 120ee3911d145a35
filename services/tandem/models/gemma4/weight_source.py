"""Where the weights of a network come from."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import torch

from tandem.models.gemma4.parameters import Destination


class Tensors(Protocol):
    """The tensors of one network, known to be those that it wants."""

    def read(
        self, names: Iterable[str], rows: Mapping[str, range] | None = None
    ) -> Iterator[tuple[str, int, torch.Tensor]]:
        """Yields a tensor's name, the first row of a piece, and the piece [rows, ...]; a small tensor is one piece.

        Of tensors that `rows` names, those rows alone.
        """
        ...


class WeightSource(Protocol):
    """Gives a checkpoint folder's network its tensors."""

    def open(self, folder: Path, wanted: Mapping[str, Destination], unused: re.Pattern[str]) -> Tensors:
        """The tensors of a network.

        Args:
            folder: the checkpoint.
            wanted: what the network must be given, by name; without memory as yet.
            unused: names of tensors that may be there besides.

        Raises:
            CheckpointError: the folder does not hold exactly these.
        """
        ...

    def revision(self, folder: Path) -> str:
        """A short name of the weights, equal for equal ones.

        Raises:
            CheckpointError: there are none.
        """
        ...
