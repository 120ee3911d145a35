import os
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.drafter.ngram_index import SIZES, NgramIndex


def search(text, num_tokens):
    """The same by looking through the whole text each time."""
    for size in SIZES:
        for start in range(len(text) - 1, size - 1, -1):
            if len(text) >= size and text[start - size : start] == text[-size:]:
                extended = list(text)
                for offset in range(num_tokens):
                    extended.append(extended[start + offset])
                return extended[len(text) :]
    return []


def index_of(*parts):
    index = NgramIndex()
    for part in parts:
        index.extend(part)
    return index


@given(st.lists(st.lists(st.integers(0, 3), max_size=9), max_size=8), st.integers(0, 9))
def test_it_finds_what_a_search_finds_however_the_text_came(parts, num_tokens):
    text = [token_id for part in parts for token_id in part]
    index = index_of(*parts)
    assert len(index) == len(text)
    assert index.draft(num_tokens) == search(text, num_tokens)
    assert index.draft(num_tokens) == search(text, num_tokens), "drafting changes nothing"


@pytest.mark.parametrize(
    ("text", "drafts"),
    [
        ([], []),
        ([7], []),
        ([7, 8], []),
        ([7, 8, 9, 7], []),  # one token alone says too little
        ([7, 8, 9, 5, 7, 8], [9, 5, 7, 8]),
        ([1, 2, 3, 4, 9, 9, 1, 2, 3], [4, 9, 9, 1]),
        ([1, 2, 3, 4, 2, 3, 5, 1, 2, 3], [4, 2, 3, 5]),  # a longer match is better than a later one
        ([1, 2, 3, 4, 6, 1, 2, 3, 5, 6, 1, 2, 3], [5, 6, 1, 2]),  # of equal ones the later
        ([6, 1, 2, 1, 2], [1, 2, 1, 2]),  # what is repeated goes on so
        ([5, 5, 5, 5], [5, 5, 5, 5]),
    ],
)
def test_what_it_drafts(text, drafts):
    assert index_of(text).draft(4) == drafts


def test_a_long_copy_is_drafted_to_its_end():
    passage = random.Random(0).sample(range(262_144), 400)
    index = index_of(passage, [1, 2], passage[:2])
    for start in range(2, 400, 7):
        assert index.draft(7) == [*passage, 1, 2, *passage][start : start + 7]
        index.extend(passage[start : start + 7])


def test_the_lookup_drafter_loads_no_torch():
    code = (
        "import sys, tandem.cli.lookup_drafter, tandem.drafter.lookup_service\n"
        "print({'torch', 'numpy', 'safetensors', 'tandem.exchange', 'tandem.models'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    assert subprocess.check_output([sys.executable, "-c", code], text=True, env=environment) == "set()\n"
