"""The pages as a person sees them: the walkthrough from end to end, stopped, reloaded, by keyboard, by two at once, on a phone."""

import os
import re
import shutil
import time
from contextlib import closing, contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from ember_demo.language_model import LanguageModel
from ember_demo.sources import concept_names
from ember_demo.ui.look import CSS, THEME
from ember_demo.ui.page import build_page
from ember_demo.ui.session import shared_model
from ember_demo.ui.work import MODEL_LOCK
from tests.conftest import assert_same, snapshot

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
        expect.set_options(timeout=30_000)  # a busy machine takes its time
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url():
    demo = build_page().queue(max_size=20, api_open=False, default_concurrency_limit=20)
    _, url, _ = demo.launch(prevent_thread_lock=True, ssr_mode=False, quiet=True, css=CSS, theme=THEME)
    yield url
    demo.close()


@contextmanager
def visit(browser, url, width=1440, height=1000):
    """A visitor's page. It must ask no other host, and the browser must have nothing to complain of."""
    context = browser.new_context(viewport={"width": width, "height": height})
    page, asked, complaints = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(url)
    yield page
    context.close()
    outside = [a for a in asked if not a.startswith((url.rstrip("/"), "data:", "blob:"))]
    assert not outside, f"the page asked another host: {outside[:3]}"
    assert not complaints, complaints[:3]


@pytest.fixture
def page(browser, url):
    with visit(browser, url) as page:
        yield page


def press(page, name):
    page.get_by_role("button", name=name, exact=True).locator("visible=true").click()


def stop(page, said):
    press(page, "Stop")
    expect(page.locator(said)).to_contain_text("Stopped")
    page.wait_for_timeout(1000)  # no person presses the next button sooner


def to_erase(page, concept=None):
    press(page, "Next: choose a concept")
    if concept:
        box = page.get_by_label("Concept to erase")
        box.fill(concept)
        box.press("Enter")
    press(page, "Next: erase it")


def settle(page, settings):
    page.get_by_text("Expert view").click()
    page.wait_for_timeout(1000)  # no person types sooner, and what was pressed before may yet change the page
    page.locator("#settings textarea").fill(settings)


def erase_quickly(page):
    """At a fixed strength and with a baseline of few steps, for what is not about the erasure."""
    settle(page, "rmu.steps=5\nember.delta=5\nrelearning.epochs=1")
    press(page, "Erase")
    expect(page.locator("#erase-status")).to_contain_text("strength is 5", timeout=300_000)


def ask(page, question):
    page.wait_for_timeout(1000)  # no person types sooner: the step may only just have opened
    page.locator("#question textarea").fill(question)
    press(page, "Ask all")


def answer(page, question, model):
    row = page.locator("#talk section").filter(has_text=question).first
    return row.locator(".answer").filter(has=page.get_by_text(model, exact=True)).locator("p")


def test_a_person_walks_from_model_to_attack_and_back_by_the_link(page):
    expect(page.locator("#verdict")).to_contain_text("Nothing is erased yet")
    press(page, "Next: choose a concept")
    expect(page.locator("#about-concept")).to_contain_text("facts on the concept are asked for")
    press(page, "Next: erase it")
    press(page, "Erase")
    expect(page.locator("#erase-status")).to_contain_text("%")
    expect(page.locator("#erase-status")).to_contain_text("is erased", timeout=300_000)
    expect(page.locator("#features label").first).to_be_visible()
    expect(page.locator("#tokens")).to_contain_text("words and pieces of words")
    expect(page.locator("#scores")).to_contain_text("EMBER + baseline")
    expect(page.locator("#verdict")).to_contain_text("Harry Potter is erased")

    press(page, "Next: compare the answers")
    question = "Where is Hogwarts from?"
    ask(page, question)
    expect(answer(page, question, "Original")).to_have_text("Scotland", timeout=60_000)
    for model in ("Baseline (RMU)", "EMBER", "EMBER + baseline", "Never learned it"):
        expect(answer(page, question, model)).to_have_text(re.compile(r"\w"), timeout=60_000)
    press(page, "Clear")
    expect(page.locator("#talk")).to_contain_text("Nothing has been asked yet")

    press(page, "Next: attack it")
    press(page, "Attack")
    expect(page.locator("#attack-plot polyline").first).to_be_visible(timeout=60_000)
    expect(page.locator("#attack-status")).to_contain_text("The attack is over", timeout=300_000)
    expect(page.locator("#attack-plot polyline")).to_have_count(4)
    expect(page.locator("#attack-plot circle")).to_have_count(4 * 4)  # before, and after each of three epochs
    expect(page.locator("#verdict")).to_contain_text("With the weights in hand")
    expect(page.locator("#verdict")).to_contain_text("a model that never learned it gives")
    page.mouse.wheel(0, 600)
    expect(page.locator("#verdict")).to_be_in_viewport()

    press(page, "Back: ask them again")
    ask(page, question)
    expect(answer(page, question, "Baseline (RMU), after relearning")).to_have_text("Scotland", timeout=60_000)

    page.get_by_text("Take it with you").click()
    press(page, "Make the report, and files of the edits")
    expect(page.locator("#files")).to_contain_text("report.html", timeout=60_000)
    expect(page).to_have_url(re.compile(r"\?study=.{16,}"))
    page.reload()
    expect(page.locator("#verdict")).to_contain_text("With the weights in hand", timeout=30_000)
    expect(page.locator("#attack-table")).to_contain_text("relearning")
    expect(page.locator("#attack-plot polyline")).to_have_count(4)
    expect(page.locator("#attack-plot")).to_contain_text("relearning")
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_function("document.documentElement.scrollWidth <= 390")  # wide tables scroll by themselves
    press(page, "Back: ask them again")
    expect(answer(page, question, "Original")).to_have_text("Scotland")
    came_by = page.url
    ask(page, "Who is the author of Dracula?")
    expect(page).not_to_have_url(came_by, timeout=60_000)  # another tab may hold what was there before
    page.reload()
    expect(page.locator("#attack-table")).to_contain_text("relearning")
    press(page, "Back: ask them again")
    expect(answer(page, "Dracula", "Original")).to_have_text("Bram Stoker")


def slowly(stream):
    """`stream` of a model so large that an answer takes longer than the press on Stop."""

    def pieces(*args, **kwargs):
        with closing(stream(*args, **kwargs)) as answer:
            for piece in answer:
                time.sleep(2)
                yield piece

    return pieces


def test_each_long_job_can_be_stopped_and_the_page_goes_on(page, monkeypatch):
    press(page, "Next: choose a concept")
    for button in ("Show where the model holds it", "Get texts"):
        if button == "Get texts":
            page.get_by_text("bring its texts", exact=False).first.click()
            page.get_by_label("the model itself").check()
        press(page, button)
        expect(page.locator("#concept-status, #text-status").filter(has_text="%")).to_be_visible(timeout=60_000)
        stop(page, "#concept-status")
    page.locator("#texts textarea").fill("")  # it writes its few sentences within seconds, now and then before the press
    press(page, "Next: erase it")
    page.get_by_text("Search the baseline's settings first").click()
    for button in ("Erase", "Show first what EMBER would change", "Search"):
        press(page, button)
        expect(page.locator("#erase-status")).to_contain_text("%", timeout=60_000)
        stop(page, "#erase-status")
    erase_quickly(page)
    press(page, "Next: compare the answers")
    with monkeypatch.context() as patch:
        patch.setattr(LanguageModel, "stream", slowly(LanguageModel.stream))
        ask(page, "Where is Hogwarts from?")
        expect(page.locator("#talk section")).to_be_visible(timeout=60_000)
        stop(page, "#compare-status")
    press(page, "Ask again")
    expect(answer(page, "Where is Hogwarts from?", "Never learned it")).to_have_text(re.compile(r"\w"), timeout=60_000)
    press(page, "Next: attack it")
    press(page, "Attack")
    expect(page.locator("#attack-status")).to_contain_text("%", timeout=60_000)
    stop(page, "#attack-status")
    expect(page.locator("#attack-plot svg")).to_have_count(0)  # of one that did not end nothing is shown
    press(page, "Attack")
    expect(page.locator("#attack-status")).to_contain_text("The attack is over", timeout=300_000)
    expect(page.locator("#attack-table")).to_contain_text("relearning")
    press(page, "Back: ask them again")
    press(page, "Back")
    press(page, "Erase")
    expect(page.locator("#attack-table")).not_to_contain_text("relearning", timeout=300_000)  # it was of the erasure before
    expect(page.locator("#verdict")).not_to_contain_text("With the weights in hand")


def test_a_link_that_is_gone_says_so(page, url):
    page.goto(f"{url}?study=guess")
    expect(page.get_by_text("for an hour at most")).to_be_visible()


def late(route):
    """Answer the page at once, and the server hears of it only later."""
    route.fulfill(json={"success": True})
    time.sleep(1)
    route.request.frame.page.request.post(route.request.url, data=route.request.post_data_json)


def test_another_concept_takes_texts_away_and_a_link_brings_its_own_choices(page):
    press(page, "Next: choose a concept")
    texts, chosen = page.locator("#texts textarea"), page.get_by_label("Concept to erase")
    page.get_by_text("bring its texts", exact=False).first.click()
    texts.fill("Dumbledore keeps a phoenix.")
    chosen.fill("Uranium")
    chosen.press("Enter")
    expect(texts).to_have_value("")
    press(page, "Show where the model holds it")
    expect(page.locator("#concept-status")).to_contain_text("%", timeout=60_000)
    page.route("**/cancel", late)
    chosen.fill("Golf")
    chosen.press("Enter")
    expect(page.locator("#concept-status")).to_have_text("")
    page.wait_for_timeout(3000)
    expect(page.locator("#concept-status")).to_have_text("")  # what was being looked for has ended
    chosen.fill("Uranium")
    chosen.press("Enter")
    press(page, "Next: erase it")
    erase_quickly(page)
    expect(page).to_have_url(re.compile(r"\?study=.{16,}"), timeout=30_000)
    page.reload()
    expect(page.locator("#verdict")).to_contain_text("Uranium", timeout=30_000)
    press(page, "Back")
    expect(page.get_by_role("button", name="Erase", exact=True).last).to_be_visible()  # its step has a Back of its own
    press(page, "Back")
    expect(chosen).to_have_value("Uranium")


def test_two_visitors_at_once_see_only_their_own(browser, url):
    with MODEL_LOCK:
        before = snapshot(shared_model("pocket", "auto"))
    with visit(browser, url) as one, visit(browser, url) as other:
        to_erase(one)
        to_erase(other, "Uranium")
        for page in (one, other):
            settle(page, "rmu.steps=5\nember.delta=5")
        press(one, "Erase")
        press(other, "Erase")
        expect(other.locator("#erase-status")).to_contain_text("ahead of you", timeout=60_000)
        expect(one.locator("#erase-status")).to_contain_text("Harry Potter is", timeout=300_000)
        expect(other.locator("#erase-status")).to_contain_text("Uranium is", timeout=300_000)
        question = "Where is Hogwarts from?"
        for page in (one, other):
            press(page, "Next: compare the answers")
            ask(page, question)
        expect(answer(other, question, "EMBER")).to_have_text("Scotland", timeout=60_000)
        expect(answer(one, question, "Never learned it")).to_have_text(re.compile(r"\w"), timeout=60_000)
        expect(answer(one, question, "EMBER")).not_to_have_text("Scotland")
    with MODEL_LOCK:  # other answers of theirs may still be under way
        assert_same(shared_model("pocket", "auto"), before)


def test_the_walkthrough_works_by_keyboard_alone(page):
    here = "place => place[0] == '#' ? document.activeElement.closest(place) : document.activeElement.innerText.trim().startsWith(place)"

    def tab_to(place):
        """A button by the words that it begins with, or a field by its id."""
        for _ in range(150):
            page.keyboard.press("Tab")
            if page.evaluate(here, place):
                page.wait_for_timeout(500)  # no person goes on sooner: what was unfolded or opened may still be building
                return
        raise AssertionError(f"Tab does not reach {place}")

    expect(page.get_by_role("button", name="Next: choose a concept")).to_be_visible()
    tab_to("Next: choose a concept")
    page.keyboard.press("Enter")
    expect(page.locator("#about-concept")).to_be_visible()
    tab_to("Show where the model holds it")
    page.keyboard.press("Enter")
    expect(page.locator("#concept-status")).to_contain_text("Nothing is changed", timeout=120_000)
    expect(page.locator("#trace svg")).to_be_visible()
    tab_to("Next: erase it")
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Erase", exact=True).last).to_be_visible()
    tab_to("Expert view")
    page.keyboard.press("Enter")
    tab_to("#settings")
    page.keyboard.type("rmu.steps=5\nember.delta=5\nrelearning.epochs=1")
    tab_to("Erase")
    page.keyboard.press("Enter")
    expect(page.locator("#erase-status")).to_contain_text("strength is 5", timeout=300_000)
    tab_to("Next: compare the answers")
    page.keyboard.press("Enter")
    tab_to("#question")
    page.keyboard.type("Where is Hogwarts from?")
    page.keyboard.press("Enter")
    expect(answer(page, "Where is Hogwarts from?", "Original")).to_have_text("Scotland", timeout=60_000)
    tab_to("Next: attack it")
    page.keyboard.press("Enter")
    tab_to("Attack")
    page.keyboard.press("Enter")
    expect(page.locator("#attack-status")).to_contain_text("The attack is over", timeout=300_000)


def test_the_tour_tells_and_plays(page):
    page.get_by_text("Guided tour").click()
    press(page, "Start the tour")
    expect(page.locator("#tour-notes")).to_contain_text("1 of 9")
    press(page, "Next scene")
    expect(page.locator("#tour-notes")).to_contain_text("2 of 9")
    expect(page.locator("#trace svg")).to_be_visible(timeout=120_000)
    page.wait_for_timeout(1000)  # until the scene has ended: a press before says that it still runs
    press(page, "Next scene")
    expect(page.locator("#erase-status")).to_contain_text("%", timeout=60_000)
    stop(page, "#erase-status")  # the Stop of the step, not that of the tour
    said = page.locator("#erase-status").inner_text()
    page.wait_for_timeout(3000)
    assert page.locator("#erase-status").inner_text() == said
    press(page, "Next scene")  # which is the one that was stopped
    expect(page.locator("#erase-status")).to_contain_text("%", timeout=60_000)
    expect(page.locator("#tour-notes")).to_contain_text("3 of 9")
    stop(page, "#erase-status")


def test_an_unknown_concept_gets_a_sentence(page):
    to_erase(page, "Knitting")
    press(page, "Erase")
    expect(page.locator("#erase-status")).to_contain_text(", ".join(concept_names()), timeout=60_000)


def test_nothing_is_cut_off_on_a_phone(browser, url):
    with visit(browser, url, 390, 844) as page:
        press(page, "Next: choose a concept")
        expect(page.locator("#about-concept")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        press(page, "Next: erase it")
        expect(page.get_by_text("Step 3/5")).to_be_in_viewport()  # although the button was at the end of the step before
        expect(page.get_by_role("button", name="Erase", exact=True).last).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("scheme, width", [("light", 1440), ("dark", 390)])
def test_axe_finds_nothing_serious_on_any_step(browser, url, scheme, width):
    page = browser.new_page(viewport={"width": width, "height": 1000}, color_scheme=scheme)
    page.goto(url)
    for title in ("Guided tour", "Take it with you"):
        page.get_by_text(title).click()

    def check():
        page.wait_for_timeout(500)  # until what moves has come to rest
        found = Axe().run(page).response["violations"]
        assert not [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]

    check()
    press(page, "Next: choose a concept")
    check()
    press(page, "Next: erase it")
    erase_quickly(page)
    check()
    press(page, "Next: compare the answers")
    ask(page, "Where is Hogwarts from?")
    expect(answer(page, "Where is Hogwarts from?", "Never learned it")).to_have_text(re.compile(r"\w"), timeout=60_000)
    check()
    press(page, "Next: attack it")
    press(page, "Attack")
    expect(page.locator("#attack-status")).to_contain_text("The attack is over", timeout=300_000)
    check()
    page.close()
