"""A running app, a study in it, and what its talk shows."""

import re

import pytest
from gradio_client import Client

import ember_demo as ed
from ember_demo.ui.page import build_page
from ember_demo.ui.session import Session, shared_model
from tests.conftest import assert_same, snapshot


@pytest.fixture(scope="session")
def url():
    demo = build_page().queue(max_size=20, api_open=False, default_concurrency_limit=20)
    _, url, _ = demo.launch(prevent_thread_lock=True, ssr_mode=False, quiet=True)
    yield url
    demo.close()


@pytest.fixture(scope="session")
def erased(url):
    """A client whose session has Harry Potter erased, and what the page then shows."""
    client = Client(url, verbose=False)
    before = snapshot(shared_model("pocket", "auto"))
    shown = list(client.submit("Harry Potter", "5", 0, api_name="/erase"))
    assert_same(shared_model("pocket", "auto"), before)
    return client, shown


@pytest.fixture(scope="session")
def asked_in_step_4():
    """A session with an edit, made without a page."""
    model = shared_model("pocket", "auto")
    concept = ed.load_concept("Uranium")
    edit = ed.Ember(delta=5.0).fit(model, concept)
    return Session("pocket", "auto", concept=concept, edits={"original": None, "ember": edit}, hidden=("control", "ember", "original"))


def answers(shown):
    """By model, what it said to the last question."""
    talk = shown[2].split("<section>")[1]
    return dict(re.findall(r"class=who><b>(.*?)</b>.*?<p>(.*?)</p>", talk))
