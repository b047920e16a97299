"""An optional judge of features: a language model that describes one and says whether that is distinctive of the concept (the paper, section 3)."""

import json
import os
import re
from dataclasses import dataclass

from huggingface_hub import InferenceClient
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
    """A callable text -> text: the model itself ("self"), a chat model on the Hub by its id, or one behind the base URL of an OpenAI-like server.

    A server gets the key in EMBER_JUDGE_KEY, where there is one, and never the Hub's token.
    """
    if name == SELF:
        return lambda text: model.chat(text, max_new_tokens=120)
    if is_address(name):  # a server of somebody's choice never gets the Hub's token
        client = InferenceClient(base_url=name, api_key=os.environ.get("EMBER_JUDGE_KEY", "none"))
    else:
        client = InferenceClient(model=name)

    def ask(text):
        try:
            answer = client.chat_completion([{"role": "user", "content": text}], max_tokens=120, temperature=0.0)
            return "" + (answer.choices[0].message.content or "")  # TypeError where it is not a text
        except (HTTPError, OSError, ValueError, TypeError, AttributeError, LookupError) as error:
            raise ModelError(
                f"The judge {public_name(name)} did not answer ({type(error).__name__}); check its name and your login, or do without a judge."
            ) from None

    return ask


def is_address(name):
    return bool(re.match(r"https?://", name))


def public_name(name):
    """The judge as it may be shown: an address without user, password and query."""
    return re.sub("//[^/]*@", "//", re.split("[?#]", name)[0]) if is_address(name) else name


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
