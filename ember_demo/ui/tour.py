"""A prepared story of ten minutes on the embedded model, with the presenter's notes; every scene is computed as it is played."""

from dataclasses import dataclass

from ember_demo.ui import attack_step, compare_step, concept_step, erase_step

CONCEPT = "Harry Potter"


@dataclass(frozen=True)
class Scene:
    """step: of the walkthrough, shown with it. does: what is played: ("trace",), ("erase",), ("ask", question) or ("attack", name); None: nothing."""

    title: str
    step: int
    notes: str
    does: tuple | None = None


SCENES = (
    Scene(
        "What this is about",
        1,
        "People ask companies to make a language model *forget*: a licence ended, a person objected, a subject is dangerous. Retraining from scratch "
        "costs too much, so one edits the finished model. Today's question is not whether the model stops answering. It is whether the knowledge is "
        "**gone**, or only **hidden**. We use a small model that needs no special machine, and of which we know every fact that it was taught.",
    ),
    Scene(
        "Where does it hold what it knows?",
        2,
        f"Our subject is {CONCEPT}. Before anything is changed, we disturb the words of a question and put the inner states right again, one place at a "
        "time. Squares with a strong colour are places that bring the answer back. The first is full, as it puts the **words themselves** right; follow the colour "
        "from there: layer by layer it moves on to the end of the question.",
        ("trace",),
    ),
    Scene(
        "Erase it, in three ways",
        3,
        "The baseline retrains some layers and leaves the word table alone. EMBER finds what the concept's words share in that table and takes it out. "
        "The third model gets both. When the bars appear: the original knows nearly everything, the others next to nothing. **All three look erased.**",
        ("erase",),
    ),
    Scene(
        "Ask them",
        4,
        "The same question to all. The last one never learned the subject at all: it guesses, and guesses wrong. That is what *real* forgetting sounds like.",
        ("ask", "concept"),
    ),
    Scene(
        "Do they still know everything else?",
        4,
        "An erasure that breaks the rest is worthless. This question is on a neighbouring subject, which is to be kept.",
        ("ask", "similar"),
    ),
    Scene(
        "Now somebody wants it back",
        5,
        "The attacker holds the weights and some facts on the subject, and retrains the model on these. We ask about **other** facts, which were not "
        "among them. A model that never learned them cannot know them: the green line stays low. What rises far above it had only been hidden.",
        ("attack", "relearning"),
    ),
    Scene(
        "What EMBER does not stop",
        5,
        "An honest demonstration shows its limits. Here the attacker copies the words back from the model's own output layer, where many models keep the "
        "same table a second time, and then retrains a little. EMBER falls to this, alone or with the baseline. Whoever publishes a model must know it; "
        "step 3 offers, as a baseline, to edit the output layer too.",
        ("attack", "head-reset"),
    ),
    Scene(
        "And someone who may only ask?",
        5,
        "No weights, only questions: the name in other spellings, so that the edited words are avoided. Compare the lines with the dashed green one, which never learned it.",
        ("attack", "respelling"),
    ),
    Scene(
        "What to take home",
        5,
        "The verdict above says what the worst attacker got, and what the others did. That a model no longer answers proves little; **ask what an attacker gets back, and compare with a model "
        "that never knew**. *Take it with you*, below, makes a report with every figure, every answer and the settings; all of it was computed just now.",
    ),
)


def play(session, number, blind=False):
    """Play a scene: yields (name of what it plays or None, the values that its handler yields)."""
    scene = SCENES[number]
    if scene.does is None:
        return
    kind = scene.does[0]
    if kind == "trace":
        played = concept_step.trace(session, CONCEPT, 0)
    elif kind == "erase":
        played = erase_step.erase(session, CONCEPT, "auto", 0)
    elif kind == "ask":
        played = compare_step.ask(session, _question(session, scene.does[1]), list(compare_step.columns(session)), blind)
    else:
        played = attack_step.attack(session, [scene.does[1]])
    for values in played:
        yield kind, values


def _question(session, kind):
    """The first of that kind, put as a question, that the original model answered right, so that there is something to lose."""
    if not session.scores:
        return ""
    asked = [r.question.text for r in session.scores["original"].replies if r.question.kind == kind and r.right]
    return next((text for text in asked if text.endswith("?")), "")
