"""What stays in view: in one sentence and one picture, what was erased, what it cost, what came back, and against whom."""

from html import escape

from ember_demo.attacks import ATTACKS, THREATS
from ember_demo.pictures import before_after, tenths
from ember_demo.report import TENTH, came_back, gain, strongest
from ember_demo.study import CONTROL, ORIGINAL
from ember_demo.tuning import MIN_KNOWN
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
        return f"<p><b>{escape(name)}</b> {outcome(session)}.</p>"
    erased = [v for v, edit in session.edits.items() if edit]
    results = {attack: {v: r.as_dict() for v, r in found.items()} for attack, found in session.results.items()}
    attack = strongest(results)
    found = results.get(attack, {})
    striped = {} if any(r["chance"] for r in found.values()) else found  # choices among options are not the answers that the bars count
    rows = [
        (v, session.scores[v].accuracy["concept"], striped[v]["after"] if v in striped else None, session.scores[v].specificity)
        for v in (ORIGINAL, *erased)
    ]
    said = _came_back(session, attack, results) if found else _erased(session, erased)
    sentence = f"{said}{_cost(session, erased, bool(found))}{'' if found else ' Gone, or only hidden? An attack tells.'}"
    picture = f"<summary>In a picture</summary>{before_after(rows)}{_legend(striped)}</details>"
    words = f"<div><p><b>{escape(sentence)}</b></p>{_others(results, attack)}</div>"
    return f"<div class=verdict>{words}<details open class=wide>{picture}<details class=narrow>{picture}</div>"  # folded where there is little room


def outcome(session):
    """What became of the concept, as far as it was measured: erased where less than a fifth of what was known is left, not where at least half is."""
    if not session.scores:
        return "was edited; there are no questions on it, so nothing says whether it is gone"
    if session.scores[ORIGINAL].accuracy["concept"] < MIN_KNOWN:
        return "was edited, but this model hardly answered questions on it before"
    efficacy = {label(v): session.scores[v].efficacy for v, edit in session.edits.items() if edit}
    weak, partly = [v for v, e in efficacy.items() if e <= 0.5], [v for v, e in efficacy.items() if 0.5 < e <= 0.8]
    said = [f"not erased by {', '.join(weak)}"] * bool(weak) + [f"only partly erased by {', '.join(partly)}"] * bool(partly)
    return f"is {' and '.join(said)}" if said else "is erased"


def _erased(session, erased):
    parts = [f"{label(v)} {tenths(session.scores[v].accuracy['concept'])}" for v in erased]
    gibberish = {label(v): round(10 * session.scores[v].invalid_rate["concept"]) for v in erased}
    unreadable = ", ".join(f"{count} by {name}" for name, count in gibberish.items() if count)
    return (
        f"{session.concept.name} {outcome(session)}: of 10 questions on it the original gets {round(10 * session.scores[ORIGINAL].accuracy['concept'])} "
        f"right, {', '.join(parts)}." + (f" Of 10 answers some are unreadable, which is not erasure: {unreadable}." if unreadable else "")
    )


def _cost(session, erased, attacked):
    """How many of the right answers on other things the erasing left, where it is worst."""
    base = session.scores[ORIGINAL].accuracy
    kept = [session.scores[v].accuracy[kind] / base[kind] for v in erased for kind in ("similar", "general") if base.get(kind)]
    least = int(10 * min(1, *kept) + 1e-9) if kept else 0
    before = " Before the attack, of" if attacked else " Of"
    return f"{before} 10 right answers on other things at least {least} {'were' if attacked else 'are'} left." if kept else ""


def _came_back(session, attack, results):
    chosen = session.attacks[attack]
    facts = len(session.concept.facts("concept", "relearn")) if chosen.trains_on_facts else 0
    with_facts = f" and {facts} facts to train on" if facts else ""
    return f"{session.concept.name}. {HOLDING[chosen.threat_model]}{with_facts} ({chosen.title}): {came_back(results, attack)}."


def _others(results, shown, most=3):
    """What is right after the other attacks, the latest few; choices among options are not answers."""
    said, counted = [], [attack for attack, found in results.items() if not any(r["chance"] for r in found.values())]
    for attack in counted:
        found = results[attack]
        if attack != shown:
            after = ", ".join(f"{label(v)} {round(10 * r['after'])}" for v, r in found.items() if v != CONTROL)
            said.append(f"{ATTACKS[attack].title}: {after}")
    if not said:
        return ""
    best = max(gain(results[shown], v) for v in results[shown] if v != CONTROL)
    lead = "this one got most back" if shown in counted and best >= TENTH else "none got a tenth of the answers back"
    more = len(results) - len(counted)
    choices = f" {more} more count{'s' * (more == 1)} choices among options: see step 5." if more else ""
    return f"<p class=note>Of {len(counted)} attacks {lead}. Right of 10 after {escape('; '.join(said[-most:]))}.{choices}</p>"


def _legend(found):
    back = " Striped: what the attack brought back." if found else ""
    return f"<p class=note>Right answers on the concept. Filled: after erasing.{back} Thin line: what is left of the answers on other things.</p>"
