"""Where a concept's texts come from when no pack brings them: pasted text, a file, Wikipedia, or the model itself."""

import http.client
import json
import os
import random
import re
import urllib.parse
import urllib.request
from pathlib import Path

from ember_demo.errors import ConceptError
from ember_demo.pocket.world import ASSETS
from ember_demo.progress import silent

WANTED = 300  # sentences, as in the paper
ENOUGH = 40  # sentences; under it the words that make a concept are seen too seldom to tell them from others
WORDS = (4, 60)  # in a sentence
LARGEST_FILE = 20_000_000  # bytes
WIKIPEDIA = "https://en.wikipedia.org/w/api.php"
FACETS = (
    "what it is",
    "its history",
    "its people",
    "its places",
    "its parts and terms",
    "its customs and rules",
    "what it is known for",
    "its numbers and dates",
)


def neutral_sentences():
    """The 300 sentences on everyday topics that ship with the project, 60 of them questions."""
    return json.loads((ASSETS / "neutral.json").read_text(encoding="utf-8"))


def split_sentences(text):
    """Sentences of a text: markup, headings and doubles dropped, none under 4 words or over 60."""
    text = re.sub(r"```.{0,5000}?```|</?[A-Za-z][^<>\n]{0,200}>|!\[[^\]\n]{0,200}\]\([^)\n]{0,500}\)", " ", text, flags=re.DOTALL)
    text = re.sub(r"\[([^\]\n]{0,200})\]\([^)\n]{0,500}\)", r"\1", text)
    lines = [re.sub(r"^\s*(?:[#>*+-]+|\d+[.)])\s+", "", line).strip() for line in text.splitlines() if not re.match(r"\s*(#|=|\|)", line)]
    found = []
    for line in lines:
        found += re.split(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9])", re.sub(r"[*_`]{1,3}", "", line))
    tidy = (" ".join(sentence.split()) for sentence in found)
    return list(dict.fromkeys(s for s in tidy if WORDS[0] <= len(s.split()) <= WORDS[1]))


def read_file(path):
    """Sentences of a txt or md file, or of the texts in a jsonl file (strings, or objects with `text` or `sentence`)."""
    path = Path(path)
    if not path.is_file():
        raise ConceptError(f"There is no file {path}; check the path.")
    if path.suffix.lower() not in (".txt", ".md", ".jsonl"):
        raise ConceptError(f"{path.name} is not a txt, md or jsonl file; give the texts as one of these.")
    if path.stat().st_size > LARGEST_FILE:
        raise ConceptError(
            f"{path.name} has {path.stat().st_size / 1e6:,.0f} MB; {LARGEST_FILE / 1e6:.0f} MB are enough for any concept. Cut it down."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConceptError(f"{path.name} is not text in UTF-8; save it as UTF-8.") from None
    if path.suffix.lower() == ".jsonl":
        text = "\n".join(_jsonl_text(path, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
    return split_sentences(text)


def _jsonl_text(path, number, line):
    try:
        row = json.loads(line)
        return row if isinstance(row, str) else str(row.get("text") or row["sentence"])
    except (ValueError, RecursionError, AttributeError, KeyError):
        raise ConceptError(f"Line {number} of {path.name} is neither a string nor an object with `text` or `sentence`.") from None


def from_wikipedia(name, pages=6):
    """Up to 300 sentences of the pages that Wikipedia finds for a name, drawn at random where there are more."""
    found = _ask_wikipedia(list="search", srsearch=name, srlimit=pages)
    titles = [hit["title"] for hit in found.get("query", {}).get("search", [])]
    if not titles:
        raise ConceptError(f"Wikipedia has no page on {name}; check the spelling, or give texts of your own.")
    sentences = []
    for title in titles:
        if len(sentences) >= WANTED:
            break
        pages_found = _ask_wikipedia(prop="extracts", explaintext=1, redirects=1, titles=title).get("query", {}).get("pages", {})
        for page in pages_found.values():
            sentences += split_sentences(page.get("extract", ""))
    sentences = list(dict.fromkeys(sentences))
    chosen = sorted(random.Random(name).sample(range(len(sentences)), min(WANTED, len(sentences))))
    return [sentences[i] for i in chosen]


def _ask_wikipedia(**query):
    address = os.environ.get("EMBER_WIKIPEDIA", WIKIPEDIA) + "?" + urllib.parse.urlencode({"action": "query", "format": "json", **query})
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "ember-demo/1.0 (research demo)"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read(LARGEST_FILE))
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ConceptError(f"Wikipedia cannot be reached ({reason}); connect to the internet, or give texts of your own.") from None


def from_model(model, name, progress=silent):
    """Sentences that the loaded model writes on a concept, and the names, places and terms that it lists for it."""
    requests = [f"Write ten sentences about {name} for an encyclopedia: {facet}. Only the sentences, one a line." for facet in FACETS]
    requests += [f"List thirty {what} that belong to {name}, separated by commas. Only the list." for what in ("names", "places", "terms")]
    sentences = []
    for number, request in enumerate(requests):
        progress(number / len(requests), f"The model writes on {name}: part {number + 1} of {len(requests)}")
        reply = model.chat(request, max_new_tokens=400)
        if number < len(FACETS):
            sentences += [s for s in split_sentences(reply) if re.search(r"[.!?][\"')\]]*$", s)]  # the last one may be cut
        else:
            terms = list(dict.fromkeys(term.strip(" .") for term in re.split(r"[,\n]", reply) if 1 <= len(term.split()) <= 5))
            sentences += [f"{name} goes with {term}." for term in terms if term and term.lower() not in name.lower()]
    return list(dict.fromkeys(sentences))[:WANTED]


def check_enough(name, sentences):
    """The sentences; ConceptError where they are too few for more than a weak edit."""
    if len(sentences) < ENOUGH:
        raise ConceptError(
            f"There are only {len(sentences)} sentences on {name}; at least {ENOUGH} are needed, and {WANTED} are best. "
            "Add text (pages on its people, places and terms), or choose another source."
        )
    return sentences
