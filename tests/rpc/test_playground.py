"""The playground in a real browser, before a verifier that plays scripts."""

import asyncio
import re
from contextlib import asynccontextmanager

import pytest
from grpc_health.v1 import health_pb2
from playwright.async_api import expect

from tandem.core.errors import EngineFault, QueueFull
from tandem.gateway.tokenizer import TextTokenizer
from tandem.v1 import types_pb2
from tests.browser import needs_chromium, open_playground
from tests.rpc.fake_verifier import finished, play, started, verified
from tests.unit.gateway.conftest import GEMMA_TEMPLATE, byte_fallback_tokenizer, save_checkpoint

pytestmark = [needs_chromium, pytest.mark.browser]

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> &amp; <b>the fox</b>"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """As Gemma's, so that a turn may have thoughts and calls."""
    folder = tmp_path_factory.mktemp("gemma") / "target"
    return save_checkpoint(folder, byte_fallback_tokenizer(), GEMMA_TEMPLATE)


@pytest.fixture(scope="session")
def tokenizer(checkpoint):
    return TextTokenizer.load(checkpoint)


@pytest.fixture
def open_page(open_client, verifier):
    """A gateway, and the page in a browser."""

    @asynccontextmanager
    async def open_page(**settings):
        async with open_client(http_listen="127.0.0.1:0", **settings) as client:
            await client.wait_for_health(health_pb2.HealthCheckResponse.SERVING)
            async with open_playground(client.gateway.http_address) as playground:
                playground.client = client
                yield playground

    return open_page


@pytest.fixture
def write(fake):
    """Makes the model write these tokens: the first by itself, then one own after each drafted one."""

    def write(ids, reason=types_pb2.FINISH_REASON_LENGTH, **ending):
        pairs = [ids[index : index + 2] for index in range(1, len(ids), 2)]
        statistics = types_pb2.SpeculationStatistics(
            num_rounds=len(pairs),
            num_draft_tokens=2 * len(pairs),
            num_accepted_tokens=len(pairs),
            accepted_by_position=[len(pairs), 0],
        )
        rounds = [verified(pair, 1, 2) for pair in pairs]
        end = finished(reason, speculation=statistics, **ending)
        fake.script = lambda request: play(started(seed=7), verified(ids[:1]), *rounds, end)

    return write


async def test_hostile_text_is_text(open_page, write, tokenizer):
    write(tokenizer.encode(HOSTILE))
    async with open_page() as playground:
        await playground.ask(HOSTILE)
        await playground.ends()
        assert await playground.text() == HOSTILE
        assert await playground.answer.locator("script, img, b").count() == 0
        assert playground.complaints == []


async def test_thoughts_and_calls_stand_apart(open_page, fake, write, tokenizer):
    special = tokenizer.special_tokens
    thought, text, call = (tokenizer.encode(text) for text in ("thought\nhello", "the fox", "call:weather{days:2}"))
    begins, ends = special["<|channel>"], special["<channel|>"]
    called = [special["<|tool_call>"], *call, special["<tool_call|>"], special["<|tool_response>"]]
    fake.model.eos_token_ids[:] = [special["<|tool_response>"]]
    write([begins, *thought, ends, *text, *called], types_pb2.FINISH_REASON_STOP, stop_token_id=called[-1])
    async with open_page() as playground:
        page = playground.page
        await page.get_by_text("Chat", exact=True).click()
        await page.get_by_label("Think before answering").check()
        await page.get_by_text("Tools", exact=True).click()
        tools = page.get_by_label("Tools, a JSON list as in OpenAI's API")
        await tools.fill("[{")
        await playground.ask("the fox")
        await expect(playground.problem).to_contain_text("The tools are not JSON")
        await tools.fill('[{"type": "function", "function": {"name": "weather"}}]')
        await playground.ask("the fox")
        await playground.ends()
        blocks = [await block.inner_text() for block in await page.locator("#answer pre").all()]
        assert blocks == ["hello", "the fox", "<|tool_call>call:weather{days:2}<tool_call|>"]
        assert await playground.texts("#answer summary") == ["Thought", "Tool call"]
        assert (await playground.status.inner_text()).startswith("Waits for what its calls give.")
        assert playground.complaints == []


async def test_stopping_frees_the_sequence(open_page, fake, tokenizer):
    ids = tokenizer.encode("the fox the fox the fox")

    async def script(request):
        yield started(seed=7)
        for token_id in ids:
            yield verified([token_id])
        await asyncio.Event().wait()  # the rest never comes

    fake.script = script
    async with open_page() as playground:
        for stop in (playground.button("Stop").click, lambda: playground.page.keyboard.press("Escape")):
            await playground.ask("hello")
            await expect(playground.page.locator("#tokens")).to_have_text(str(len(ids)))
            assert fake.num_running == 1
            await expect(playground.button("Run")).to_be_disabled()
            await stop()
            await expect(playground.status).to_have_text("Stopped.")
            await asyncio.wait_for(fake.idle.wait(), 5)
            assert await playground.text() == "the fox the fox the fox", "what came stays"
            await expect(playground.button("Run")).to_be_focused()
            await expect(playground.button("Compare without drafts")).to_be_disabled()
        assert playground.complaints == []


async def test_a_difference_is_told(open_page, fake, tokenizer):
    ids, other = tokenizer.encode("the fox jumps"), tokenizer.encode("the dog jumps")

    def script(request):
        written = other if request.num_speculative_tokens == 0 else ids
        return play(started(seed=7), *(verified([token_id]) for token_id in written), finished())

    fake.script = script
    first = next(index for index, (one, two) in enumerate(zip(ids, other, strict=False)) if one != two)
    async with open_page() as playground:
        await playground.ask("hello")
        await playground.ends()
        await playground.button("Compare without drafts").click()
        await expect(playground.verdict).to_contain_text(f"The texts differ from token {first + 1} on.")
        await expect(playground.verdict).to_have_class("different")
        assert playground.complaints == []


async def test_a_key_is_asked_for_and_kept_in_memory_alone(open_page, write, tokenizer, tmp_path):
    write(tokenizer.encode("the fox"))
    keys = tmp_path / "keys"
    keys.write_text("right-key\n")
    async with open_page(api_keys_file=str(keys)) as playground:
        page, key = playground.page, playground.page.get_by_label("API key")
        await expect(playground.problem).to_contain_text("The API key is missing or wrong.")
        await key.fill("wrong-key")
        await playground.ask("hello")
        await expect(playground.problem).to_contain_text("The API key is missing or wrong.")
        await key.fill("right-key")
        await playground.ask("hello")
        await playground.ends()
        await expect(playground.problem).to_be_hidden()
        await expect(page.locator("#model")).to_have_text("tiny")
        assert page.url == f"http://{playground.client.gateway.http_address}/"
        assert not any("right-key" in url for url in playground.asked)
        kept = await page.evaluate("() => [document.cookie, localStorage.length, sessionStorage.length]")
        assert kept == ["", 0, 0]
        await page.reload()
        await expect(key).to_have_value("")


async def test_what_goes_wrong_is_told(open_page, fake, write, tokenizer):
    async def fails(request):
        yield started(seed=7)
        yield verified(tokenizer.encode("the fox"))
        raise EngineFault("a secret of the inside")

    async def is_full(request):
        raise QueueFull("no slot is free", 2.0)
        yield

    async with open_page() as playground:
        await playground.ask("hello", max_tokens=100_000)
        await expect(playground.problem).to_contain_text("max_tokens")
        await playground.ask("", max_tokens=8)
        await expect(playground.problem).to_have_text("The prompt is empty.")
        fake.script = is_full
        await playground.ask("hello")
        await expect(playground.problem).to_contain_text("The server has no room for this request now.")
        fake.script = fails
        await playground.ask("hello")
        await expect(playground.problem).to_be_visible()
        await expect(playground.problem).not_to_contain_text("secret")
        assert await playground.text() == "the fox", "what came stays"
        write(tokenizer.encode("the fox"))
        await playground.ask("hello")
        await playground.ends()
        await expect(playground.problem).to_be_hidden()
        failures = [re.sub(r"status of (\d+) .*", r"\1", text) for text in playground.complaints]
        assert all("Failed to load resource" in text for text in failures), failures


async def test_a_server_that_is_gone_is_told(open_client, verifier, fake, tokenizer):
    async def script(request):
        yield started(seed=7)
        yield verified(tokenizer.encode("the fox"))
        await asyncio.Event().wait()

    fake.script = script
    async with open_client(http_listen="127.0.0.1:0") as client:
        await client.wait_for_health(health_pb2.HealthCheckResponse.SERVING)
        opened = open_playground(client.gateway.http_address)
        playground = await opened.__aenter__()
        await playground.ask("hello")
        await expect(playground.answer).to_have_text("the fox")
    try:
        await expect(playground.problem).to_be_visible()
        await playground.button("Run").click()
        await expect(playground.problem).to_have_text("The server cannot be reached.")
    finally:
        await opened.__aexit__(None, None, None)
