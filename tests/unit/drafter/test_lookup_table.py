from tandem.drafter.lookup_table import LookupTable

TEXT = [1, 2, 3, 4, 1, 2]


def table_of(max_tokens=100, **slots):
    table = LookupTable(max_tokens)
    for number, text in enumerate(slots.values()):
        table.extend(number, 10 + number, 0, text)
    return table


def test_slots_do_not_see_each_other():
    table = table_of(a=TEXT, b=[5, 6, 7, 5, 6], c=[1, 2])
    assert [table.draft(slot, 2) for slot in (0, 1, 2, 3)] == [[3, 4], [7, 5], [], []]
    assert len(table) == 13


def test_a_text_comes_in_pieces():
    table = table_of(a=TEXT[:3])
    table.extend(0, 10, 3, TEXT[3:5])
    assert table.draft(0, 2) == []
    table.extend(0, 10, 5, TEXT[5:])
    assert table.draft(0, 2) == [3, 4] and len(table) == 6


def test_another_sequence_in_the_slot_knows_nothing_of_the_one_before():
    table = table_of(a=TEXT)
    table.extend(0, 11, 0, [1, 2])
    assert table.draft(0, 2) == [] and len(table) == 2


def test_start_0_begins_anew_even_for_the_same_sequence():
    table = table_of(a=TEXT)
    table.extend(0, 10, 0, [1, 2])
    assert table.draft(0, 2) == [] and len(table) == 2


def test_what_continues_nothing_known_is_not_kept():
    for slot, sequence, start in [(0, 10, 5), (0, 10, 7), (0, 11, 6), (1, 10, 6)]:
        table = table_of(a=TEXT)
        table.extend(slot, sequence, start, TEXT)
        assert table.draft(slot, 2) == []
        assert len(table) == (0 if slot == 0 else 6)


def test_the_slots_that_waited_longest_are_forgotten():
    table = table_of(max_tokens=15, a=TEXT, b=TEXT)
    table.extend(0, 10, 6, [3])
    table.extend(2, 12, 0, TEXT)
    assert [table.draft(slot, 1) for slot in (0, 1, 2)] == [[4], [], [3]] and len(table) == 13
    table.extend(1, 11, 6, [3])
    assert table.draft(1, 1) == [], "half a text is worth nothing"


def test_a_text_that_is_too_long_by_itself_is_forgotten_too():
    table = table_of(max_tokens=5, a=TEXT)
    assert table.draft(0, 1) == [] and len(table) == 0
