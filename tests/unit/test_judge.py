"""The optional judge of features: what it is asked, how its answer is read, and what happens when it does not answer."""

import json

import pytest

import ember_demo as ed
from ember_demo.judge import judge_feature, make_judge, public_name
from tests.servers import Handler, serving


def replying(verdict):
    return lambda text: "Names of wizards." if "in common" in text else verdict


@pytest.mark.parametrize(
    "reply, keeps, confidence",
    [
        ('{"distinctive": true, "confidence": 0.9}', True, 0.9),
        ('Sure! {"distinctive": true, "confidence": 0.9} Hope it helps.', True, 0.9),
        ('{"distinctive": true, "confidence": 0.8}', False, 0.8),
        ('{"distinctive": false, "confidence": 1}', False, 1.0),
        ('{"distinctive": "true", "confidence": 7}', False, 1.0),
        ("Yes, very.", False, 0.0),
        ('{"confidence": null, "distinctive": true}', False, 0.0),
    ],
)
def test_a_feature_is_kept_where_the_judge_is_sure_that_it_is_distinctive(reply, keeps, confidence):
    verdict = judge_feature(replying(reply), "Harry Potter", ["Hogwarts", "Dobby"])
    assert verdict.keeps is keeps and verdict.confidence == confidence and verdict.description == "Names of wizards."


@pytest.fixture(autouse=True)
def online(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # as it is outside of these tests; nothing but loopback is asked


@pytest.fixture
def server():
    """(base URL, texts it was asked, keys it was given) of a server like OpenAI's, whose judge keeps features with the token Grindelwald."""
    asked, tokens = [], []

    class Judge(Handler):
        def do_POST(self):
            text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][0]["content"]
            asked.append(text)
            tokens.append(self.headers.get("Authorization"))
            said = text if text.startswith("These") else json.dumps({"distinctive": "Grindelwald" in text, "confidence": 0.95})
            self.answer({"choices": [{"index": 0, "message": {"role": "assistant", "content": said}}], "model": "judge"})

    with serving(Judge) as http:
        yield f"http://127.0.0.1:{http.server_port}/v1", asked, tokens


def test_a_judge_behind_a_server_chooses_the_features_and_gets_no_token(server, model, concept, untouched, monkeypatch):
    address, asked, tokens = server
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    edit = ed.Ember(delta=2.0, judge=address.replace("127", "me:password@127")).fit(model, concept)
    assert tokens and not any("hf_secret" in (token or "") for token in tokens)
    assert edit.details["settings"]["ember"]["judge"] == address
    features = edit.details["features"]
    assert features and all("Grindelwald" in f["tokens"] and f["confidence"] == 0.95 for f in features)
    assert len(asked) % 2 == 0 and any("Grindelwald" in text for text in asked)


def test_a_server_is_asked_for_the_model_that_was_named_or_the_first_it_lists(monkeypatch):
    monkeypatch.setenv("EMBER_JUDGE_KEY", "sk-123")

    class Judge(Handler):
        def do_GET(self):
            known = self.path == "/v1/models" and self.headers["Authorization"] == "Bearer sk-123"
            self.answer({"data": [{"id": "small"}, {"id": "team/large:8b"}]} if known else {}, 200 if known else 404)

        def do_POST(self):
            said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["model"]
            self.answer({"choices": [{"index": 0, "message": {"role": "assistant", "content": said}}], "model": said})

    with serving(Judge) as http:
        address = f"127.0.0.1:{http.server_port}/v1"
        assert make_judge(f"http://{address}", None)("Hello") == "small"
        assert make_judge(f"team/large:8b@http://{address}", None)("Hello") == "team/large:8b"
    assert public_name(f"team/large:8b@http://me:hunter2@{address}?key=1") == f"team/large:8b@http://{address}"


@pytest.mark.parametrize("place", ["127.0.0.1:9", "127.0.0.1:99999999", "[bad"])
def test_a_judge_that_does_not_answer_is_a_sentence_without_its_secrets(place):
    with pytest.raises(ed.ModelError, match="do without a judge") as caught:
        make_judge(f"http://me:hunter2@{place}/v1?key=sk-123", None)("Hello")
    assert place in str(caught.value) and "hunter2" not in str(caught.value) and "sk-123" not in str(caught.value)


@pytest.mark.parametrize(
    "reply",
    [
        {},
        [],
        {"error": {"message": "no credit"}},
        {"choices": []},
        {"choices": None},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {"content": [{"text": "yes"}]}}]},
    ],
)
def test_a_reply_of_another_form_is_a_sentence(reply):
    class Judge(Handler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(reply)

    with serving(Judge) as http, pytest.raises(ed.ModelError, match="do without a judge"):
        make_judge(f"http://127.0.0.1:{http.server_port}/v1", None)("Hello")


def test_the_model_itself_may_judge_and_one_that_cannot_keeps_nothing(model, concept, untouched):
    with pytest.raises(ed.ConceptError, match="No feature"):
        ed.Ember(delta=2.0, judge="self").fit(model, concept)
