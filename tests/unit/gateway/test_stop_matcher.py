import itertools
import random

import pytest

from tandem.gateway.stop_matcher import StopMatcher


def run(stops, pieces, include_stop=False):
    matcher = StopMatcher(stops, include_stop)
    shown = []
    for piece in pieces:
        shown.append(matcher.push(piece))
        if matcher.match is not None:
            return "".join(shown), matcher.match
    return "".join(shown) + matcher.flush(), None


def by_definition(stops, text, include_stop=False):
    """The first end of any stop text; of several that end there, the longest."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            stop = max(ending, key=len)
            return text[: end if include_stop else end - len(stop)], stop
    return text, None


@pytest.mark.parametrize("include_stop", [False, True])
def test_split_at_every_pair_of_places(include_stop):
    text = "say END. not ENENDX"
    for first, second in itertools.combinations_with_replacement(range(len(text) + 1), 2):
        pieces = [text[:first], text[first:second], text[second:]]
        for stops in (["END"], ["ENDX", "X"], [".", "END."], ["nothing"], ["EN", "END"], ["NENDX"]):
            assert run(stops, pieces, include_stop) == by_definition(stops, text, include_stop)


def test_random_texts_of_two_letters():
    """Two letters make overlaps, borders and stops inside stops the normal case."""
    chance = random.Random(9)
    for _ in range(3000):
        stops = ["".join(chance.choices("ab", k=chance.randrange(1, 6))) for _ in range(chance.randrange(1, 5))]
        text = "".join(chance.choices("abc", k=chance.randrange(30)))
        places = sorted(chance.choices(range(len(text) + 1), k=3))
        pieces = [text[a:b] for a, b in itertools.pairwise([0, *places, len(text)])]
        include_stop = chance.random() < 0.5
        assert run(stops, pieces, include_stop) == by_definition(stops, text, include_stop)


def test_only_what_could_become_a_stop_waits():
    matcher = StopMatcher(["abcabd", "xyz"])
    assert matcher.push("hello abcab") == "hello "
    assert matcher.push("c") == "abc", "abcabc: only its end abc can still begin the stop"
    assert matcher.push("x") == "abc"
    assert matcher.push("yy") == "xyy"
    assert matcher.push("x") == ""
    assert matcher.flush() == "x"


def test_no_stops_means_no_waiting():
    assert StopMatcher([]).push("anything") == "anything"


def test_characters_not_bytes():
    assert run(["中文"], ["a中", "文b"]) == ("a", "中文")
