"""Offsets and sizes of an exchange on a GPU: those of the target file, then the drafts."""

import pytest

from tandem.core.errors import ExchangeError
from tandem.exchange.cuda_layout import cuda_layout_of
from tandem.exchange.layout import LAYOUT_VERSION, Part, layout_of
from tests.unit.exchange.specs import SPEC, spec_with


def test_the_offsets_are_those_of_version_1() -> None:
    """Written out: a drafter of somebody else counts on them, so that a change needs a new LAYOUT_VERSION."""
    layout = cuda_layout_of(SPEC)
    assert LAYOUT_VERSION == 1
    assert layout.target == layout_of(SPEC)
    assert layout.drafts == Part("drafts", "int64", (3, 5), 7104)
    assert layout.num_bytes == 2 * 1024 * 1024


@pytest.mark.parametrize(
    ("vocabulary_size", "granules"),
    [(87_093, 1), (87_094, 2), (174_474, 2), (174_475, 3)],  # 24 bytes each; 6784 before them, 120 behind
)
def test_the_memory_is_whole_granules(vocabulary_size: int, granules: int) -> None:
    layout = cuda_layout_of(spec_with(vocabulary_size=vocabulary_size))
    assert layout.num_bytes == granules << 21
    assert layout.drafts.offset + layout.drafts.num_bytes <= layout.num_bytes
    assert layout.drafts.offset % 64 == 0


def test_a_verifier_that_never_drafts_has_no_drafts() -> None:
    assert cuda_layout_of(spec_with(max_draft_tokens=0)).drafts.num_bytes == 0


def test_absurd_sizes_are_refused() -> None:
    with pytest.raises(ExchangeError):
        cuda_layout_of(spec_with(vocabulary_size=1 << 24, hidden_size=1 << 20))
