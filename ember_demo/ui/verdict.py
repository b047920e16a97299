"""What stays in view: in one sentence and one picture, what was erased, what it cost, what came back, and against whom."""

from html import escape

from ember_demo.attacks import THREATS
from ember_demo.pictures import before_after, tenths
from ember_demo.study import CONTROL, ORIGINAL
from ember_demo.wording import label

HOLDING = {
    THREATS[0]: "Only asking",
    THREATS[1]: "With the weights in hand",
    THREATS[2]: "With the weights and the public model in hand",
}


def view(session):
    if not session.edits:
        return "<p>Nothing is erased yet. Choose a model and a concept, erase it, compare the answers, then attack.</p>"
    name = session.concept.name
    if not session.scores:
        return f"<p><b>{escape(name)}</b> is erased; there are no questions on it, so nothing is counted.</p>"
    erased = [v for v, edit in session.edits.items() if edit]
    attack = strongest(session)
    found = session.results.get(attack, {})
    rows = [(v, label(v), session.scores[v].accuracy["concept"], found[v].after if v in found else None) for v in (ORIGINAL, *erased)]
    sentence = _came_back(session, attack, found, erased) if found else _erased(session, erased)
    return f"<p><b>{escape(sentence)}</b></p><details open><summary>In a picture</summary>{before_after(rows)}{_legend(found)}</details>"


def strongest(session):
    """The attack so far that got most back from what is erased, above what it taught the control."""

    def worth(name):
        found = session.results[name]
        control = found[CONTROL].after if CONTROL in found else 0.0
        return max(r.after - control for v, r in found.items() if v != CONTROL)

    return max(session.results, key=worth, default=None)


def _erased(session, erased):
    parts = [f"{label(v)} {tenths(session.scores[v].accuracy['concept'])}" for v in erased]
    kept = min(session.scores[v].specificity for v in erased)
    return (
        f"{session.concept.name} is erased: of 10 answers on it the original gives {tenths(session.scores[ORIGINAL].accuracy['concept']).split()[0]}, "
        f"{', '.join(parts)}. Of 10 answers on other things at least {int(10 * kept + 1e-9)} are left. Gone, or only hidden? An attack tells."
    )


def _came_back(session, attack, found, erased):
    threat = HOLDING[session.attacks[attack].threat_model]
    facts = len({q.fact for q in session.concept.select("concept", "relearn")}) if attack.startswith("relearning") else 0
    with_facts = f" and {facts} facts to retrain on" if facts and not attack.endswith(("neighbour", "unrelated", "paragraphs")) else ""
    parts = [f"{label(v)} gave back {tenths(found[v].after)} answers" for v in erased if v in found]
    never = f"; a model that never learned it gives {tenths(found[CONTROL].after)}" if CONTROL in found else ""
    return f"{session.concept.name}. {threat}{with_facts} ({attack}): {', '.join(parts)}{never}."


def _legend(found):
    back = " Striped: what the attack brought back." if found else ""
    return f"<p class=note>Right answers on the concept. Filled: after erasing.{back}</p>"
