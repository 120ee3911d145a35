from tandem.kv_cache.block_digests import extend_digests


def digests_of(token_ids, salt="", block_size=4):
    digests = []
    extend_digests(digests, token_ids, block_size, salt)
    return digests


def test_only_full_blocks_are_named():
    assert [len(digests_of(range(count))) for count in (0, 3, 4, 7, 8)] == [0, 0, 1, 1, 2]


def test_a_name_stands_for_all_tokens_before_its_end():
    one, other = digests_of([1, 2, 3, 4, 5, 6, 7, 8]), digests_of([1, 2, 3, 9, 5, 6, 7, 8])
    assert one[0] != other[0] and one[1] != other[1]
    assert digests_of([1, 2, 3, 4, 5, 6, 7, 9])[0] == one[0]


def test_going_on_names_what_naming_at_once_does():
    token_ids = [token_id * 70_000 for token_id in range(23)]
    digests = []
    for count in range(24):
        extend_digests(digests, token_ids[:count], 4, "salt")
    assert digests == digests_of(token_ids, "salt")


def test_another_salt_names_everything_otherwise():
    one, other = digests_of(range(8), "one"), digests_of(range(8), "other")
    assert not set(one) & set(other)
