"""The page as a person sees it: erase Harry Potter, ask all variants, watch the attack."""

import os
import re
import shutil

import pytest
from playwright.sync_api import expect, sync_playwright

from ember_demo.sources import concept_names
from ember_demo.ui.page import CSS, build_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")


@pytest.fixture(scope="module")
def browser():
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if not found:
        message = "no Chromium or Chrome on this machine"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url():
    demo = build_page().queue(max_size=20, api_open=False)
    _, url, _ = demo.launch(prevent_thread_lock=True, ssr_mode=False, quiet=True, css=CSS)
    yield url
    demo.close()


@pytest.fixture
def page(browser, url):
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    yield page
    page.close()
    outside = [a for a in asked if not a.startswith((url.rstrip("/"), "data:", "blob:"))]
    assert not outside, f"the page asked another host: {outside[:3]}"


def test_a_person_erases_asks_and_attacks(page):
    expect(page.get_by_role("heading", name="EMBER: erase a concept")).to_be_visible()
    page.get_by_role("button", name="Erase", exact=True).click()
    expect(page.locator("#erase-status")).to_contain_text("%")
    expect(page.locator("#erase-status")).to_contain_text("is erased", timeout=300_000)
    expect(page.locator("#features")).to_contain_text("concept's own")
    expect(page.locator("#tokens")).to_contain_text("tokens")
    expect(page.locator("#scores")).to_contain_text("EMBER + baseline")

    page.locator("#question textarea").fill("Where is Hogwarts from?")
    page.get_by_role("button", name="Ask all").click()
    expect(page.locator("#chat-original")).to_contain_text("Scotland", timeout=60_000)
    for variant in ("rmu", "ember", "ember-rmu"):
        expect(page.locator(f"#chat-{variant} .bot").first).to_contain_text(re.compile(r"\S"), timeout=60_000)
    page.get_by_role("button", name="Clear all").click()
    expect(page.locator("#chat-original")).not_to_contain_text("Scotland")

    page.get_by_role("button", name="Attack", exact=True).click()
    expect(page.locator("#attack-status")).to_contain_text("epoch", timeout=60_000)
    expect(page.locator("#attack-plot polyline").first).to_be_visible(timeout=60_000)
    expect(page.locator("#verdict")).to_contain_text("never learned it reaches", timeout=300_000)
    expect(page.locator("#attack-plot polyline")).to_have_count(4)
    expect(page.locator("#attack-plot circle")).to_have_count(4 * 4)  # before, and after each of three epochs
    expect(page.locator("#attack-plot")).to_contain_text("Never learned it")


def test_stopping_says_so_and_the_page_goes_on(page):
    page.get_by_role("button", name="Erase", exact=True).click()
    expect(page.locator("#erase-status")).to_contain_text("%")
    page.get_by_role("button", name="Stop").first.click()
    expect(page.locator("#erase-status")).to_contain_text("Stopped")
    page.get_by_role("button", name="Show what EMBER would change").click()
    expect(page.locator("#erase-status")).to_contain_text("Nothing is changed yet", timeout=120_000)


def test_an_unknown_concept_gets_a_sentence(page):
    box = page.get_by_label("Concept to erase")
    box.fill("Knitting")
    box.press("Enter")
    page.get_by_role("button", name="Erase", exact=True).click()
    expect(page.locator("#erase-status")).to_contain_text(", ".join(concept_names()), timeout=60_000)


def test_nothing_is_cut_off_on_a_phone(browser, url):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(url)
    expect(page.get_by_role("button", name="Erase", exact=True)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()
