"""The playground before the demo pair: `tandem up`, and a real browser."""

import re
from math import floor

import httpx
import pytest
from playwright.async_api import expect

from tests.browser import needs_chromium, open_playground
from tests.e2e.conftest import Up

pytestmark = needs_chromium

REQUEST = {
    "prompt": 'def read_lines(path):\n    """Returns the lines of a file."""',
    "temperature": 0.8,
    "seed": 7,
    "max_tokens": 96,
}


@pytest.fixture(scope="module")
def http_address():
    """The HTTP port of one `tandem up` on the demo pair."""
    up = Up("--http-listen=127.0.0.1:0")
    try:
        assert up.address
        yield up.wait_for(r"HTTP on http://(\S+)$")[1]
    finally:
        up.close()


@pytest.fixture
async def playground(http_address):
    """The page; whatever a test does with it, it asks its own origin alone and the browser finds no fault."""
    async with open_playground(http_address) as playground:
        yield playground
        assert all(url.startswith(f"http://{http_address}/") for url in playground.asked), playground.asked
        assert playground.complaints == []


def completion(address):
    """What the door itself answers to `REQUEST`."""
    return httpx.post(f"http://{address}/v1/completions", json=REQUEST, timeout=60).json()


async def test_a_finished_answer_with_its_chart(playground, http_address, tmp_path):
    await playground.ask(**REQUEST)
    num_accepted, num_tokens = await playground.ends()
    expected = completion(http_address)
    statistics = expected["usage"]["tandem"]
    assert statistics["accepted_tokens"] > 0
    assert await playground.text() == expected["choices"][0]["text"]
    assert num_tokens == expected["usage"]["completion_tokens"] == len(await playground.texts("#answer .token"))
    # Which tokens are drafts may depend on how late a drafter was; that they are what was counted does not.
    assert num_accepted == len(await playground.texts("#answer .token.drafted")) > 0
    rounds = int(await playground.figure("rounds"))
    assert rounds == num_tokens - 1 - num_accepted, "the prompt gives the first token, a round its drafts and one more"
    assert await playground.figure("acceptance-length") == f"{1 + num_accepted / rounds:.2f}"
    assert float(await playground.figure("speed")) > 0
    assert re.fullmatch(r"\d+ ms", await playground.figure("first-token"))
    await expect(playground.page.locator("#chart-source")).to_have_text("final")
    shares = [int(text) for text in await playground.texts(".chart .share")]
    assert len(shares) == len(statistics["accepted_by_position"]) == 4
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(100 * num_accepted / rounds, abs=2)
    bars = [await bar.bounding_box() for bar in await playground.page.locator(".chart .bar").all()]
    assert [bar["height"] / bars[0]["height"] for bar in bars] == pytest.approx(
        [share / shares[0] for share in shares], abs=0.03
    )
    await playground.page.screenshot(path=tmp_path / "playground.png", full_page=True)
    assert (tmp_path / "playground.png").stat().st_size > 20_000


async def test_the_chart_lives_while_the_answer_streams(playground):
    await playground.ask(**REQUEST | {"max_tokens": 900})
    await expect(playground.page.locator("#answer .token.drafted").nth(20)).to_be_attached()
    await playground.button("Stop").click()
    await expect(playground.status).to_have_text("Stopped.")
    await expect(playground.page.locator("#chart-source")).to_have_text("live")
    drafted = [name == "token drafted" for name in await classes(playground)]
    accepted, rounds = accepted_by_position(drafted)
    # Halves go up in a browser.
    assert [int(text) for text in await playground.texts(".chart .share")][: len(accepted)] == [
        floor(count / rounds * 100 + 0.5) for count in accepted
    ]
    assert await playground.figure("rounds") == str(rounds)


async def test_the_texts_are_equal_without_drafts(playground):
    await playground.ask(**REQUEST)
    _, num_tokens = await playground.ends()
    await playground.button("Compare without drafts").click()
    await expect(playground.verdict).to_contain_text(f"The texts are equal, all {num_tokens} tokens.", timeout=30_000)
    await expect(playground.verdict).to_contain_text(re.compile(r"Drafts made it \d+\.\d times as fast\."))
    await expect(playground.verdict).to_have_class("equal")
    for name in ("with-speed", "without-speed"):
        assert re.fullmatch(r"[\d.]+ tokens/s", await playground.figure(name))


async def test_without_drafts_nothing_is_highlighted(playground):
    await playground.ask(**REQUEST | {"drafts": 0})
    assert await playground.ends() == (0, REQUEST["max_tokens"])
    assert await playground.texts("#answer .token.drafted") == []
    assert await playground.figure("acceptance-length") == "1.00"
    await expect(playground.button("Compare without drafts")).to_be_disabled()


async def test_a_chat_by_keyboard_alone(playground):
    page = playground.page
    await page.get_by_label("Completion").focus()
    await page.keyboard.press("ArrowRight")
    await expect(page.get_by_label("Chat", exact=True)).to_be_checked()
    await page.get_by_label("Temperature").fill("0")  # whatever seed is drawn, the text is not empty
    await page.get_by_label("Most tokens").fill("24")
    await page.get_by_label("Seed").fill("")
    await page.get_by_label("Prompt").focus()
    await page.keyboard.type("hello")
    await page.keyboard.press("Control+Enter")
    await playground.ends()
    assert await playground.text()
    assert int(await page.get_by_label("Seed").input_value()) >= 0, "the seed that was drawn can be asked for again"


async def classes(playground):
    return [await token.get_attribute("class") for token in await playground.page.locator("#answer .token").all()]


def accepted_by_position(drafted):
    """Rounds that accepted each position, and all rounds: an own token ends a round, the first came before any."""
    runs = [len(run) for run in "".join("d" if one else "." for one in drafted[1:]).split(".")]
    runs = runs if runs[-1] else runs[:-1]
    return [sum(run > position for run in runs) for position in range(max(runs))], len(runs)
