import pytest

from tandem.gateway.detokenizer import detokenizer_for
from tandem.gateway.stop_matcher import StopMatcher
from tandem.gateway.text_stream import TextStream
from tandem.internal.v1.verifier_service_pb2 import Round


def open_stream(tokenizer, stops=(), stop_token_ids=(), min_tokens=0, include_stop=False):
    matcher = StopMatcher(stops, include_stop)
    return TextStream(detokenizer_for(tokenizer), matcher, stop_token_ids, min_tokens, include_stop)


def run(tokenizer, rounds, **options):
    """All deltas; every one is checked against the promise on tokens and text."""
    stream = open_stream(tokenizer, **options)
    deltas = []
    for verified in rounds:
        deltas.append(stream.push(verified))
        if stream.match is not None:
            break
    else:
        deltas.append(stream.finish())
    text = tokens = ""
    for delta in deltas:
        text += delta.text
        tokens += "".join(token.text for token in delta.tokens)
        assert text.startswith(tokens), "a token comes with or after the last character of its text"
        assert delta.num_tokens == len(delta.tokens)
        assert delta.num_drafted_tokens == sum(token.drafted for token in delta.tokens)
    assert tokens == text
    assert stream.num_released_tokens == sum(delta.num_tokens for delta in deltas)
    return text, [token for delta in deltas for token in delta.tokens], stream


def cut(ids, size):
    return [Round(token_ids=ids[i : i + size]) for i in range(0, len(ids), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_everything_comes_out_once(tokenizer, size):
    ids = tokenizer.encode("hello 中文😀 world")
    text, tokens, _ = run(tokenizer, cut(ids, size))
    assert text == "hello 中文😀 world" and [token.id for token in tokens] == ids


@pytest.mark.parametrize("size", [1, 2, 5, 100])
@pytest.mark.parametrize("include_stop", [False, True])
def test_a_stop_text_between_any_two_offsets(tokenizer, size, include_stop):
    text = "the hello 中😀 world"
    ids = tokenizer.encode(text)
    for start in range(len(text)):
        for end in range(start + 1, min(len(text), start + 7) + 1):
            stop = text[start:end]
            expected = text[: text.find(stop)] + (stop if include_stop else "")
            shown, tokens, stream = run(tokenizer, cut(ids, size), stops=[stop], include_stop=include_stop)
            assert (shown, stream.match) == (expected, stop)
            # Counted are the tokens up to the one that completes the stop text, however rounds are cut.
            num_needed = next(n for n in range(len(ids) + 1) if stop in tokenizer.decode(ids[:n]))
            assert [token.id for token in tokens] == ids[:num_needed]


def test_tokens_wait_for_their_text(tokenizer):
    stream = open_stream(tokenizer, stops=["world peace"])
    ids = tokenizer.encode("hello world war")
    deltas = [stream.push(Round(token_ids=[token_id])) for token_id in ids]
    held = [delta for delta in deltas if not delta.num_tokens]
    assert held, "tokens that could be a stop text's are held back"
    assert "".join(delta.text for delta in deltas) + stream.finish().text == "hello world war"


def test_drafted_tokens_and_logprobs_stay_with_their_token(tokenizer):
    ids = tokenizer.encode("hello w")
    logprobs = [{"logprob": -float(token_id), "top_logprobs": [{"id": token_id, "logprob": -1}]} for token_id in ids]
    verified = Round(token_ids=ids, num_drafted_tokens=len(ids) - 1, logprobs=logprobs)
    _, tokens, _ = run(tokenizer, [verified])
    assert [token.drafted for token in tokens] == [True] * (len(ids) - 1) + [False]
    assert all(token.logprob == -token.id and token.top_logprobs[0].id == token.id for token in tokens)
    _, tokens, _ = run(tokenizer, cut(ids, 2))
    assert not any(token.HasField("logprob") for token in tokens)


def test_the_text_of_a_stop_token_is_not_shown_unless_asked_for(tokenizer):
    ids = tokenizer.encode("the hello")
    stop = ids[-1]
    visible = tokenizer.decode(ids[:-1])
    text, tokens, _ = run(tokenizer, cut(ids, 3), stop_token_ids=[stop])
    assert text == visible and [token.id for token in tokens] == ids
    text, _, _ = run(tokenizer, cut(ids, 3), stop_token_ids=[stop], include_stop=True)
    assert text == "the hello"
    text, _, _ = run(tokenizer, cut(ids, 3), stop_token_ids=[stop], min_tokens=len(ids))
    assert text == "the hello", "before min_tokens it is a token like any other"


def test_end_inside_a_character(tokenizer):
    ids = tokenizer.encode("a😀")[:-1]
    text, tokens, _ = run(tokenizer, cut(ids, 1))
    assert text == tokenizer.decode(ids) and [token.id for token in tokens] == ids


def test_the_last_character_may_complete_a_stop_text(tokenizer):
    ids = tokenizer.encode("a😀")
    text, _, stream = run(tokenizer, cut(ids, 1), stops=["😀"])
    assert (text, stream.match) == ("a", "😀")
    text, _, stream = run(tokenizer, cut(ids[:-1], 1), stops=["\ufffd"])
    assert (text, stream.match) == ("a", "\ufffd")


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_stop_text_complete_within_min_tokens_is_passed_over(tokenizer, size):
    ids = tokenizer.encode("the fox and the fox")
    first = next(n for n in range(len(ids)) if "fox" in tokenizer.decode(ids[:n]))
    for min_tokens, expected in ((0, "the "), (first - 1, "the "), (first, "the fox and the ")):
        text, _, stream = run(tokenizer, cut(ids, size), stops=["fox"], min_tokens=min_tokens)
        assert (text, stream.match) == (expected, "fox")
