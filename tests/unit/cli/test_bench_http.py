import json

from tandem.cli.bench import http
from tandem.cli.bench.command import FEATURES
from tandem.cli.bench.config import FEATURES as NAMES
from tandem.cli.bench.http import Ask, count_wrong
from tandem.gateway.http.completion_request import CompletionRequest
from tandem.gateway.http.request_body import read_request


def test_it_can_be_measured_by_its_name():
    assert FEATURES[http.NAME] is http.measure_http and http.NAME in NAMES


def test_lost_surplus_and_misplaced_tokens_are_wrong():
    assert count_wrong([(1, 2, 3)], [(1, 2, 3)]) == 0
    assert count_wrong([(1, 2), (4, 5, 6)], [(1, 2, 3), (4, 6, 5)]) == 3
    assert count_wrong([(1, 2, 3)], [(1, 2)]) == 1


def test_both_doors_are_asked_for_the_same():
    ask = Ask("x", 7, "salt", 0.5, 3)
    request = read_request(CompletionRequest, json.dumps(ask.body()).encode())
    assert request.spec("") == ask.spec() and request.stream


def test_the_section_compares_medians_and_tokens():
    waits = {"gRPC": [5.0, 10.0, 6.0], "HTTP": [9.0, 7.0, 100.0]}
    section = http._section(waits, [(1, 2), (3,)], [(1, 2), (4,)])
    assert [(goal.value, goal.is_reached) for goal in section.goals] == [(3.0, True), (1.0, False)]
    assert "1 of 2, 3 tokens" in section.lines[-1]
    assert http._section({"gRPC": [], "HTTP": []}, [(1,)], [(1,)]).goals[0].value is None
