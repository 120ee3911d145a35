import pytest

from tandem.gateway.token_spelling import TokenSpelling


@pytest.fixture
def spelling(tokenizer):
    return TokenSpelling(tokenizer)


@pytest.mark.parametrize("text", ["the fox", "  hello\n", "中 é ☃", "<中>"])
def test_the_bytes_of_a_texts_tokens_are_the_texts(tokenizer, spelling, text):
    assert b"".join(map(spelling.bytes_of, tokenizer.encode(text))).decode() == text


def test_a_part_of_a_character_is_its_bytes(tokenizer, spelling):
    assert [spelling.bytes_of(token_id) for token_id in tokenizer.encode("中")][0] == "中".encode()[:1]


def test_special_tokens_are_spelled_by_their_names(tokenizer, spelling):
    for name, token_id in tokenizer.special_tokens.items():
        assert spelling.bytes_of(token_id) == name.encode() and spelling.is_special(token_id)
    assert not spelling.is_special(tokenizer.encode("the")[0])


def test_rows_beyond_the_vocabulary_are_empty(tokenizer, spelling):
    assert spelling.bytes_of(tokenizer.library.get_vocab_size() + 7) == b""
