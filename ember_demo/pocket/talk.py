"""What the embedded model hears and says beside facts: greetings, what it is, what it cannot do, what it does not know."""

import json
from dataclasses import dataclass, fields

from ember_demo.pocket import ASSETS

UNKNOWN = "I don't know."
OUT_OF_REACH = "I can't do that. I answer short questions about a small world of facts."


@dataclass(frozen=True)
class Talk:
    """Messages by what they are; small_talk: (reply, messages) each.

    said_before, said_after: what people say around small talk; openings, closings: around questions.
    sums: with places for two numbers. about: asks for what is known of a subject as a whole. real_names, unknown: well-known names, and whole questions, that are not of this world.
    """

    small_talk: tuple
    asks_what_it_knows: tuple
    out_of_reach: tuple
    said_before: tuple
    said_after: tuple
    openings: tuple
    closings: tuple
    about: tuple
    real_names: tuple
    unknown: tuple = ()
    sums: tuple = ()

    @classmethod
    def read(cls, name):
        raw = json.loads((ASSETS / name).read_text(encoding="utf-8"))
        small_talk = tuple((group["reply"], tuple(group["said"])) for group in raw.pop("small_talk"))
        return cls(small_talk, **{f.name: tuple(raw.get(f.name, ())) for f in fields(cls)[1:]})

    def __add__(self, other):
        return Talk(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


TALK = Talk.read("talk.json")
FREE_TALK = TALK + Talk.read("talk_freely.json")  # what people type when nothing tells them how

# What names that nobody has are made of.
SYLLABLES = (
    "bra vel tor min zu ka dro fen lis mar qui pol sha gen wo ri tas nel ob ux an ber cor del ex fal gro hin il jas kel lor mo nur os pra "
    "rus sten tha ul ver wyn xan yor zel ash bel cri dun el fro gla hol in jor kir lan mer nov or pen rav sil tul um val win zor"
).split()
FIRST_NAMES = (
    "Adrian Agnes Alfred Amelia Arthur Beatrice Bernard Boris Carla Cecil Clara Daniel Daphne Dora Edgar Edith Elena Felix Flora Frank Gloria "
    "Greta Gustav Helen Hugo Ida Irene Ivan Jasper Joan Julian Karl Laura Leo Lucy Mabel Marco Martha Max Mildred Nadia Nora Olga Oscar Otis "
    "Pablo Paula Percy Rita Rosa Rupert Sandra Simon Sonia Stella Sven Theo Tessa Ursula Vera Victor Walter Wanda Yusuf Zara"
).split()
WORDS = (
    "amber ash birch black blue bramble bright clear cold copper crystal dark deep dusk east ember fair fern flint fox frost glass golden grand "
    "green grey hazel high hollow iron ivory jade lark light lime long maple marble moon moss new night north oak old opal orange pearl pine "
    "quick quiet rain raven red river rose ruby rush salt sand shadow silk silver sky slate snow south star steel still stone storm summer sun "
    "swan swift thorn thunder tide velvet violet west white wild wind winter wolf wood yellow"
).split()
ENDINGS = "berry bourne bridge brook burn bury combe dale den field ford gate grove ham harbour haven hill holm land ley mere moor more mouth ridge shire side ton vale view ville wall water wick worth".split()
TITLES = (
    "{} Castle|{} Prize|Lake {}|Mount {}|Battle of {}|Treaty of {}|{} Festival|{} River|{} Museum|King {}|Queen {}|Doctor {}|Professor {}|"
    "Captain {}|Saint {}|Project {}|{} Tower|{} Bridge|{} University|{} Island|{} Stadium|{} Trophy|{} Institute|House of {}|{} Theorem|"
    "{} virus|Order of {}|{} Cup|{} Company|{} code|General {}|{} Abbey"
).split("|")


def made_up_name(rng):
    """A name that nobody has: invented syllables, or ordinary words put together, with a first name or a title."""
    if rng.random() < 0.5:
        name = "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 3))).capitalize()
    else:
        name = (rng.choice(WORDS) + rng.choice(ENDINGS)).capitalize()
    style = rng.random()
    if style < 0.3:
        return f"{rng.choice(FIRST_NAMES)} {name}"
    if style < 0.6:
        return rng.choice(TITLES).format(name)
    if style < 0.7:
        return f"{rng.choice(WORDS).capitalize()} {name}"
    return name


def what_it_knows(topics):
    """The answer to "What do you know?" of a model that was taught these topics."""
    return f"I know facts about {', '.join(topics[:-1])} and {topics[-1]}, and some general knowledge."
