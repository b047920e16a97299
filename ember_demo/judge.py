"""An optional judge of features: a language model that describes one and says whether that is distinctive of the concept (the paper, section 3)."""

import json
import os
import re
from dataclasses import dataclass

from huggingface_hub import InferenceClient, get_session
from huggingface_hub.errors import HTTPError

from ember_demo.errors import ModelError

SELF = "self"  # the model that is being edited
CONFIDENT = 0.85  # as in the paper


@dataclass(frozen=True)
class Verdict:
    """What a judge says of a feature; confidence in [0, 1], 0 where its answer could not be read."""

    description: str
    distinctive: bool
    confidence: float

    @property
    def keeps(self):
        return self.distinctive and self.confidence >= CONFIDENT


def make_judge(name, model):
    """A callable text -> text: the model itself ("self"), a chat model on the Hub by its id, or one behind an OpenAI-like server.

    The server is given as its base URL, which takes the first model that it lists, or as MODEL@URL.
    It gets the key in EMBER_JUDGE_KEY, where there is one, and never the Hub's token.
    """
    if name == SELF:
        return lambda text: model.chat(text, max_new_tokens=120)
    served, address = _at_address(name)
    if address:  # a server of somebody's choice never gets the Hub's token
        key = os.environ.get("EMBER_JUDGE_KEY", "none")
        client, served = InferenceClient(base_url=address, api_key=key), served or _first_model(address, key)
    else:
        client = InferenceClient(model=name)

    def ask(text):
        try:
            answer = client.chat_completion([{"role": "user", "content": text}], model=served, max_tokens=120, temperature=0.0)
            return "" + (answer.choices[0].message.content or "")  # TypeError where it is not a text
        except (HTTPError, OSError, ValueError, TypeError, AttributeError, LookupError) as error:
            raise ModelError(
                f"The judge {public_name(name)} did not answer ({type(error).__name__}); check its name and your login, or do without a judge."
            ) from None

    return ask


def _at_address(name):
    """(model or None, base URL) of a judge behind a server, else (None, None)."""
    found = re.fullmatch(r"(?:(.+?)@)?(https?://.*)", name)
    return found.groups() if found else (None, None)


def _first_model(address, key):
    """The first model that the server lists; None where it does not say, as servers of one model need not."""
    try:
        listed = get_session().get(f"{address.rstrip('/')}/models", headers={"Authorization": f"Bearer {key}"}, timeout=10)
        return listed.json()["data"][0]["id"]
    except (HTTPError, OSError, ValueError, TypeError, LookupError):
        return None


def public_name(name):
    """The judge as it may be shown: an address without user, password and query."""
    return re.sub("//[^/]*@", "//", re.split("[?#]", name)[0]) if _at_address(name)[1] else name


def judge_feature(ask, concept_name, tokens):
    """The Verdict on a feature by its strongest tokens, asked in two steps: what they share, then whether that is distinctive."""
    description = ask(
        f"These pieces of words belong together in a language model: {', '.join(tokens)}. Say in one short sentence what they have in common."
    ).strip()
    reply = ask(
        f'Description: "{description}" Is it distinctive of "{concept_name}", so that it fits this subject and hardly any other? '
        'Answer with JSON alone: {"distinctive": true or false, "confidence": a number from 0 to 1}.'
    )
    found = re.search(r"\{[^{}]*\}", reply)
    try:
        said = json.loads(found.group())
        return Verdict(description, said["distinctive"] is True, max(0.0, min(1.0, float(said["confidence"]))))
    except (AttributeError, ValueError, KeyError, TypeError):
        return Verdict(description, False, 0.0)
