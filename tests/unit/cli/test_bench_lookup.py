from tandem.cli.bench import lookup
from tandem.cli.bench.command import FEATURES
from tandem.cli.bench.config import FEATURES as NAMES
from tandem.cli.bench.lookup import BEGUN_TOKENS, PASSAGE_TOKENS, copying
from tandem.cli.bench.prompts import Prompt
from tandem.cli.bench.throughput import How, Measured, Throughput
from tandem.drafter.ngram_index import NgramIndex


def test_it_can_be_measured_by_its_name():
    assert FEATURES[lookup.NAME] is lookup.measure_lookup and lookup.NAME in NAMES


def test_a_copy_can_be_looked_up_to_its_end():
    prompt = copying(Prompt("", tuple(range(200))))
    index = NgramIndex()
    index.extend(prompt.token_ids)
    assert index.draft(PASSAGE_TOKENS) == [*range(BEGUN_TOKENS, PASSAGE_TOKENS), *range(BEGUN_TOKENS)]


def test_the_section_compares_medians():
    speeds = {How.LOOKUP: (100.0, 300.0, 110.0), How.SPLIT: (50.0, 55.0, 1.0), How.PLAIN: (10.0, 20.0, 22.0)}
    measured = tuple(
        Measured(how, 1, tuple(Throughput(1.0, speed, 8.0, 2.5) for speed in found), ())
        for how, found in speeds.items()
    )
    section = lookup._section(measured, {How.LOOKUP: 4, How.PLAIN: 3}, 4, 80)
    assert [(goal.value, goal.bound) for goal in section.goals] == [(5.5, None), (2.2, None)]
    assert [line.split()[-1] for line in section.lines[2:]] == ["4", "4", "3"]
    assert section.samples["with lookup drafter, decode tokens a second"] == [100.0, 300.0, 110.0]
