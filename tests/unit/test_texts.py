"""A concept that is only a name: where its texts and questions come from, and what is refused."""

import json
import os
import re
import shlex
from urllib.parse import parse_qs, urlparse

import pytest

import ember_demo as ed
from ember_demo.cli import main
from ember_demo.evaluation import normalise
from ember_demo.pocket.world import load_world
from ember_demo.questions import AGAIN, SHORT, _short, write_questions
from ember_demo.sources import gather
from ember_demo.texts import ENOUGH, LARGEST_FILE, from_model, from_wikipedia, neutral_sentences, read_file, split_sentences
from tests.servers import Handler, serving

PROSE = split_sentences("\n".join(ed.load_concept("Golf").texts))[: ENOUGH + 4]


def test_neutral_sentences_are_three_hundred_and_name_no_concept():
    sentences = neutral_sentences()
    assert len(sentences) == len(set(sentences)) == 300
    text = f" {normalise(' '.join(sentences))} "
    for pack in load_world().packs.values():
        assert f" {normalise(pack.name)} " not in text


def test_sentences_come_without_markup_headings_doubles_and_fragments():
    text = "# Falcons\n\n- A **falcon** is a [bird](http://x) of prey. Fast!\n1. It hunts from above. It hunts from above.\n| a | table |\n<b>Its</b> eyes are very sharp."
    assert split_sentences(text) == ["A falcon is a bird of prey.", "It hunts from above.", "Its eyes are very sharp."]


def test_signs_in_prose_are_not_taken_for_markup():
    text = "The value of x < 5 holds for all of these.\nRome was not built in a day, they say.\n> A quote stands in this line."
    assert len(split_sentences(text)) == 3
    assert split_sentences("<" * 200_000 + "[" * 200_000) == []  # at once, not in hours


@pytest.mark.parametrize("name", ["texts.txt", "texts.md"])
def test_a_text_file_gives_its_sentences(name, tmp_path):
    (tmp_path / name).write_text("\n".join(PROSE), encoding="utf-8")
    assert read_file(tmp_path / name) == PROSE


def test_a_jsonl_file_gives_its_texts(tmp_path):
    rows = [json.dumps(PROSE[0]), json.dumps({"text": PROSE[1]}), "", json.dumps({"sentence": PROSE[2]})]
    (tmp_path / "texts.jsonl").write_text("\n".join(rows), encoding="utf-8")
    assert read_file(tmp_path / "texts.jsonl") == PROSE[:3]


def test_a_line_of_jsonl_may_hold_any_line_separator(tmp_path):
    text = f"{PROSE[0]}\u2028{PROSE[1]}"
    (tmp_path / "texts.jsonl").write_text(json.dumps({"text": text}, ensure_ascii=False), encoding="utf-8")
    assert read_file(tmp_path / "texts.jsonl") == PROSE[:2]


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("texts.pdf", b"%PDF", "txt, md or jsonl"),
        ("texts.txt", b"\xff\xfe\x00caf\xe9", "UTF-8"),
        ("texts.jsonl", b'{"title": 1}', "Line 1"),
        ("texts.jsonl", b"[" * 100_000, "Line 1"),
    ],
)
def test_a_file_that_cannot_be_read_says_so(name, content, says, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ed.ConceptError, match=says):
        read_file(tmp_path / name)


def test_a_file_of_two_gigabytes_is_refused_unread(tmp_path):
    path = tmp_path / "texts.txt"
    with open(path, "wb") as file:
        file.truncate(2_000_000_000)  # sparse: nothing is written
    assert path.stat().st_size > LARGEST_FILE
    with pytest.raises(ed.ConceptError, match="Cut it down"):
        read_file(path)


def test_too_few_sentences_are_an_error_and_not_a_weak_edit():
    with pytest.raises(ed.ConceptError, match=f"only 3 sentences on Falconry; at least {ENOUGH}"):
        ed.load_concept("Falconry", texts=PROSE[:3])
    concept = ed.load_concept("Falconry", texts=PROSE)
    assert concept.texts == PROSE and len(concept.neutral_texts) == 300 and not concept.questions


def test_too_few_words_of_its_own_are_an_error_too(model):
    words = "the man and the woman said that it was in the house on".split()
    texts = [" ".join([*words[i % 7 :], *words[: i % 7], words[i % 12], words[i // 12]]) + "." for i in range(60)]
    with pytest.raises(ed.ConceptError, match="at least 30 are needed"):
        ed.Ember(delta=2.0).fit(model, ed.load_concept("Nothing", texts=texts))


def test_a_concept_from_texts_is_erased_with_a_given_delta(model, untouched):
    texts = ed.load_concept("Golf").texts
    concept = ed.load_concept("My golf", texts=texts)
    edit = ed.Ember(delta=5.0).fit(model, concept)
    with edit.applied(model):
        assert model.chat("Tell me about Golf.")
    with pytest.raises(ed.ConceptError, match="delta=5"):
        ed.Ember().fit(model, concept)


@pytest.fixture
def wikipedia(monkeypatch):
    class Wikipedia(Handler):
        def do_GET(self):
            query = {k: v[0] for k, v in parse_qs(urlparse(self.path).query).items()}
            if query.get("list") == "search":
                hits = [] if query["srsearch"] == "Nobody" else [{"title": "Falconry"}, {"title": "Hawk"}]
                found = {"search": hits}
            else:
                start = 0 if query["titles"] == "Falconry" else 20
                found = {"pages": {"1": {"extract": "== Heading ==\n" + " ".join(PROSE[start : start + 25])}}}
            self.answer({"query": found})

    with serving(Wikipedia) as server:
        monkeypatch.setitem(os.environ, "EMBER_WIKIPEDIA", f"http://127.0.0.1:{server.server_port}/w/api.php")
        yield


def test_wikipedia_gives_the_page_and_those_near_it(wikipedia):
    assert from_wikipedia("falconry") == PROSE
    assert gather("falconry", None, "wikipedia") == PROSE
    with pytest.raises(ed.ConceptError, match="no page on Nobody"):
        from_wikipedia("Nobody")


def test_a_study_keeps_the_texts_that_it_fetched(wikipedia, tmp_path, capsys):
    study = ["study", "--concept", "falconry", "--texts", "wikipedia", "--no-questions", "--erasers", "ember", "--set", "ember.delta=5"]
    assert main([*study, "--out", str(tmp_path)]) == 0
    assert read_file(tmp_path / "texts.txt") == PROSE
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert f"--texts {shlex.quote(str(tmp_path / 'texts.txt'))}" in report["command"] and report["edited_tokens"]


def test_wikipedia_out_of_reach_says_so(monkeypatch):
    monkeypatch.setitem(os.environ, "EMBER_WIKIPEDIA", "http://127.0.0.1:9/w/api.php")
    with pytest.raises(ed.ConceptError, match="cannot be reached"):
        from_wikipedia("falconry")


def test_an_answer_of_wikipedia_that_is_cut_says_so(monkeypatch):
    class Cut(Handler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"query":')

    with serving(Cut) as server:
        monkeypatch.setitem(os.environ, "EMBER_WIKIPEDIA", f"http://127.0.0.1:{server.server_port}/w/api.php")
        with pytest.raises(ed.ConceptError, match="cannot be reached"):
            from_wikipedia("falconry")


class Scripted:
    """Stands in for an instruct model: answers by rules, since none fits into a test."""

    def __init__(self, knows=True):
        self.knows = knows
        self.asked = 0

    def chat(self, request, max_new_tokens=0):
        self.asked += 1
        if request.startswith("Name six"):
            return "Hawks, Owls, Hunting."
        if request.startswith("List thirty"):
            return "Jess, Lure, Bell\nHood, Falconry, a very long term that is not one"
        if request.startswith("Write ten sentences"):
            return "\n".join(f"{i}. Falconry part {self.asked} has a rule number {i}." for i in range(1, 11))
        return "\n".join(f"{i}. What is question {self.asked * 10 + i} about?" for i in range(1, 9)) + "\nNo question here."

    def answer(self, questions, max_new_tokens=0):
        return [(self._answer(q), True) for q in questions]

    def _answer(self, text):
        if text.startswith("Say this question"):
            number = int("".join(c for c in text if c.isdigit()))
            return f"Question {number} is about what?\nSure!"
        number = int("".join(c for c in text if c.isdigit()))
        if number % 2 or self.knows:
            return f"Reply {'x' * (number % 5)}{number + 1000}."
        return f"Guess {hash(text)}"


def test_the_model_writes_texts_and_lists_its_terms():
    sentences = from_model(Scripted(), "Falconry")
    assert len(sentences) == len(set(sentences)) and "Falconry goes with Lure." in sentences
    assert sum("has a rule" in s for s in sentences) == 80
    assert not any("very long term" in s for s in sentences)


def test_a_sentence_that_the_model_did_not_end_is_left_out():
    scripted = Scripted()
    scripted.chat = lambda request, max_new_tokens=0: "Falconers fly their birds at dawn. The birds are of many kinds, but"
    sentences = from_model(scripted, "Falconry")
    assert "Falconers fly their birds at dawn." in sentences
    assert not any("of many kinds" in s for s in sentences if not s.startswith("Falconry goes with"))


def test_questions_are_kept_where_two_phrasings_get_one_answer():
    questions = write_questions(Scripted(), "Falconry")
    kinds = {kind: [q for q in questions if q.kind == kind] for kind in ("concept", "similar", "general")}
    assert all(len(rows) >= 20 for rows in kinds.values())
    assert all(q.text.endswith(SHORT) and q.answer.startswith("Reply") for q in questions)
    assert {q.split for q in kinds["concept"]} == {"relearn", "validation", "test"}
    assert len({q.text for q in questions}) == len(questions)
    answers = {kind: {q.answer for q in rows} for kind, rows in kinds.items()}
    assert all(len(set(q.wrong)) == 3 and q.answer not in q.wrong and set(q.wrong) <= answers[q.kind] for q in questions)


@pytest.mark.parametrize(
    "answer, question, short",
    [
        ("Au.", "What is the symbol of gold?", "Au"),
        ("The symbol of gold is Au, from Latin.", "What is the symbol of gold?", "Au"),
        ("Mount Etna is the largest volcano in Europe.", "What is the largest volcano in Europe?", "Mount Etna"),
        ("It was founded by St. Patrick (in 441)", "Who founded it?", "St. Patrick"),
        ("J. K. Rowling", "Who wrote it?", "J. K. Rowling"),
        ("The largest volcano", "What is the largest volcano in Europe?", ""),
        ("", "Who?", ""),
    ],
)
def test_what_an_answer_repeats_of_its_question_is_left_out(answer, question, short):
    assert _short(answer, True, question) == short


def test_an_answer_that_was_cut_counts_as_far_as_its_first_clause():
    question = "What is the symbol of gold?"
    assert _short("The symbol of gold is Au, from the Latin aur", False, question) == "Au"
    assert _short("The symbol of gold is Aurumm", False, question) == ""


def test_a_small_model_that_labels_its_lines_answers_in_sentences_and_rewords_nothing():
    """As SmolLM2-135M-Instruct does, that was tried."""
    scripted, asked = Scripted(), []
    scripted.chat = lambda request, max_new_tokens=0: (
        "1. Falconry, 2. Hawks\n3. Owls"
        if request.startswith("Name")
        else "\n".join(
            f"Question {i}: What is the name of bird {i} of {re.search('about (.*?)[.] Each', request)[1]}?" for i in range(10, 30)
        )
    )

    def answer(text):
        asked.append(text)
        number = re.search(r"\d+", text)[0]
        return f"The name of bird {number} is Bird{chr(ord('a') + int(number) % 20)}, which is a bird of prey that is known for"

    scripted._answer = answer
    questions = write_questions(scripted, "Falconry")
    assert all(q.text.startswith("What is the name of bird") for q in questions)
    assert all(re.fullmatch("Bird[a-z]", q.answer) and q.aliases[0].startswith("The name of bird") for q in questions)
    assert any(text.startswith(AGAIN + "What is") for text in asked)
    assert any("of Hawks?" in text for text in asked) and not any("of Falconry?" in text for text in asked)


def test_questions_with_one_answer_are_in_one_split():
    scripted = Scripted()
    given = scripted._answer
    scripted._answer = lambda text: given(text) if text.startswith("Say") else f"Answer {int(''.join(c for c in text if c.isdigit())) % 7}"
    splits = {}
    for question in write_questions(scripted, "Falconry"):
        splits.setdefault(question.answer, set()).add(question.split)
    assert len(splits) == 7 and all(len(found) == 1 for found in splits.values())


def test_a_question_that_the_model_writes_twice_is_of_one_kind():
    scripted = Scripted()
    scripted.chat = lambda request, max_new_tokens=0: (
        "Hawks." if request.startswith("Name") else "\n".join(f"What is question {i} about?" for i in range(10, 40))
    )
    questions = write_questions(scripted, "Falconry")
    assert {q.kind for q in questions} == {"concept"} and len(questions) == 30


def test_a_model_that_contradicts_itself_is_not_asked_further():
    scripted = Scripted(knows=False)
    scripted._answer = lambda text, n=iter(range(10**6)): f"Guess {next(n)}"
    with pytest.raises(ed.ConceptError, match="may not know the subject"):
        write_questions(scripted, "Falconry")


def test_a_model_that_writes_no_question_is_told_from_one_that_contradicts_itself(model):
    with pytest.raises(ed.ConceptError, match="could not write any question on Chess: take a chat model.*--delta 5.*write=False"):
        ed.load_concept("Chess", model, texts=ed.load_concept("Golf").texts)
