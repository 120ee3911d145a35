"""Headless Chromium, and the playground as somebody in front of it finds it."""

import re
import shutil
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import async_playwright, expect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Those that keep it from asking for anything by itself.
SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
FIELDS = {"temperature": "Temperature", "seed": "Seed", "max_tokens": "Most tokens", "drafts": "Drafts a round (K)"}

expect.set_options(timeout=20_000)  # milliseconds

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")


class Playground:
    """The page, what it asked for and what the browser complained of."""

    def __init__(self, page):
        self.page = page
        self.asked, self.complaints = [], []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.answer, self.status = page.locator("#answer"), page.locator("#status")
        self.problem, self.verdict = page.locator("#problem"), page.locator("#verdict")

    def button(self, name):
        return self.page.get_by_role("button", name=name)

    async def ask(self, prompt=None, **fields):
        """Fills the form in and runs it."""
        if prompt is not None:
            await self.page.get_by_label("Prompt").fill(prompt)
        for name, value in fields.items():
            await self.page.get_by_label(FIELDS[name]).fill(str(value))
        await self.button("Run").click()

    async def ends(self, seconds=30):
        """Waits for the end of an answer: accepted drafts and tokens, as the page counts them in its last words."""
        await expect(self.status).to_have_text(re.compile(r"^(Ended|Waits)"), timeout=seconds * 1000)
        told = re.search(r"(\d+) of (\d+) tokens were accepted drafts", await self.status.inner_text())
        return int(told[1]), int(told[2])

    async def figure(self, name):
        return await self.page.locator(f"#{name}").inner_text()

    async def texts(self, selector):
        return await self.page.locator(selector).all_text_contents()

    async def text(self):
        """The answer's, thoughts and calls included."""
        return "".join(await self.texts("#answer .token"))


@asynccontextmanager
async def open_playground(address):
    """The page of the HTTP door at `address`, in a browser that knows nothing else and moves nothing."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        try:
            playground = Playground(await browser.new_page(reduced_motion="reduce"))
            await playground.page.goto(f"http://{address}/")
            yield playground
        finally:
            await browser.close()
