"""Step 5: somebody wants the knowledge back. Live curves, what came back, and a talk with the attacked model."""

import time
from dataclasses import replace
from html import escape
from types import SimpleNamespace

import gradio as gr

from ember_demo.attacks import ATTACKS, THREATS, Attack, Relearning
from ember_demo.errors import EmberDemoError
from ember_demo.memory import SMALL
from ember_demo.pictures import attack_curves, step_names, table
from ember_demo.study import CONTROL, choose_by_name, run_attack
from ember_demo.ui import compare_step
from ember_demo.ui.session import LEFT, STUDIES, in_turn
from ember_demo.ui.show import FIRST_ERASE, problem, settled, status, warn
from ember_demo.ui.work import run
from ember_demo.wording import about, label

NO_BREAK = "\N{NO-BREAK SPACE}"
WHO = {
    THREATS[0]: "Someone who only asks questions",
    THREATS[1]: "Someone who holds the erased model's weights",
    THREATS[2]: "Someone who holds these and the public model it came from",
}


def layout():
    gr.Markdown(
        "Somebody wants the erased knowledge back, and tries every erased model alike. The dashed green line, where such a model ships, is one that "
        "**never learned** the concept: what it gains is learning, not recovery."
    )
    with gr.Row():
        who = gr.Radio(
            [(words, threat) for threat, words in WHO.items()], value=Relearning.threat_model, label="Who attacks?", scale=2, min_width=320
        )
        # All of them, for programs; the page narrows it to those of the chosen attacker.
        attacks = gr.CheckboxGroup(_offered(ATTACKS), value=[Relearning.name], label="How? One after the other", scale=2, min_width=320)
    about = gr.Markdown(about_attacks([Relearning.name]), elem_id="attack-about")
    with gr.Row():
        attack = gr.Button("Attack", variant="primary")
        stop = gr.Button("Stop", variant="stop", scale=0, min_width=90)
    said = gr.Markdown(elem_classes="status", elem_id="attack-status")
    plot = gr.HTML(elem_id="attack-plot")
    results = gr.HTML(elem_id="attack-table")
    with gr.Row():
        back = gr.Button("Back: ask them again")
    return SimpleNamespace(**locals())


def choose_threat(threat, chosen=None):
    """The attacks of a threat model, one of them chosen, else the first: (attacks, about it)."""
    names = [name for name, attack in ATTACKS.items() if attack.threat_model == threat]
    ticked = [chosen or names[0]]
    return gr.update(choices=_offered(names), value=ticked), about_attacks(ticked)


def _offered(names):
    return [(ATTACKS[name].title, name) for name in names]


def about_attacks(names):
    """What the attacker has and does, in plain words."""
    return "\n\n".join(f"**{_called(name)}**: the attacker {ATTACKS[name].threat_model}. {ATTACKS[name].description}" for name in names)


def _called(name):
    """An attack in plain words, and as programs call it."""
    return f"{ATTACKS[name].title} ({name})"


@in_turn
def attack(session, attack_names, settings=""):
    """Attack every erased variant and the control in each of these ways: (status, plot, table, models to ask); the session is kept. settings: as in `erase`."""
    quiet = (gr.skip(),) * 4
    if not session.edits:
        yield warn(FIRST_ERASE), *quiet
        return
    try:
        if not attack_names:
            raise EmberDemoError("No attack is chosen; tick one.")
        chosen = [settled(each, settings) for each in choose_by_name(attack_names, ATTACKS, "attack")]
    except EmberDemoError as error:
        yield problem(error), *quiet
        return
    shown, left_out = quiet, {}
    for number, each in enumerate(chosen, 1):
        which = f"Attack {number} of {len(chosen)}, {_called(each.name)}. " if len(chosen) > 1 else ""
        curves, steps = {}, [""] * each.points
        yield f"{which}Starting (0%)", _plot(each, curves, steps), *quiet[1:]
        try:
            for event in run(_attacked, session, each):
                plot = gr.skip()
                if "accuracy" in event.data:  # the latest event comes again while nothing new happens
                    curve = curves.setdefault(event.data["variant"], [])
                    point = event.data["number"]
                    curve[point:] = [event.data["accuracy"]]
                    steps[point] = step_names([[steps[point]], [event.data["step"]]])[0]
                    plot = _plot(each, curves, steps)
                yield which + status(event), plot, *quiet[1:]
        except EmberDemoError as error:
            left_out[each.name] = str(error)
            continue
        session = STUDIES.keep(_with_results(session, each, *event.result, _plot(each, curves, steps)))
        shown = gr.skip(), result_table(session), compare_step.open_step(session)[0], session
        yield f"{which}It is over", *shown  # a later one may be stopped
    if len(left_out) == len(chosen):
        yield warn(" ".join(left_out.values())), *quiet
        return
    talk = " In step 4 you can talk to the models as it left them." if session.attacked else ""
    missing = "".join(f" {_called(name)} is left out: {why}" for name, why in left_out.items())
    yield f"The attack is over; every model is back as it was before it.{talk}{missing}", *shown


def _with_results(session, chosen, found, left, seconds, plot):
    """The session with what an attack found, and the weights that it left."""
    attacked = {f"{variant} after {chosen.name}": (variant, chosen.name, LEFT.keep(weights)) for variant, weights in left.items()}
    return replace(
        session,
        results=_latest(session.results, chosen.name, found),
        attacks=_latest(session.attacks, chosen.name, chosen),
        attacked={key: value for key, value in session.attacked.items() if value[1] != chosen.name} | attacked,
        views=session.views | {"plot": plot},
        seconds=session.seconds | {"attack": session.seconds.get("attack", 0.0) + seconds},
    )


def _latest(known, name, value):
    """With this value, as the last, in the place of an earlier one."""
    return {key: each for key, each in known.items() if key != name} | {name: value}


def _plot(chosen, curves, steps):
    return f"<p><b>{_called(chosen.name)}</b>: {chosen.counts} on the concept, for every model alike.</p>{attack_curves(curves, steps, chosen.counts != Attack.counts)}"


def _attacked(session, chosen, progress):
    model, left, began = session.model, {}, time.perf_counter()
    # To be talked to.
    keep = chosen.changes_weights and model.parameter_count < SMALL and model.precision != "4bit"  # there they are adapters, and packed

    def watched(fraction, message, **data):
        if keep and data.get("number") == chosen.points - 1 and data["variant"] != CONTROL:
            left[data["variant"]] = {name: p.detach().cpu().clone() for name, p in model.network.named_parameters()}
        progress(fraction, message, **data)

    erased = {name: edit for name, edit in session.edits.items() if edit}
    found = run_attack(chosen, model, session.concept, erased, session.seed, watched, session.scores)
    return found, left, time.perf_counter() - began


def result_table(session):
    """What every attack so far got back from every variant, and above what it taught the control."""
    variants = [name for name, edit in session.edits.items() if edit]
    controlled = any(CONTROL in found for found in session.results.values())
    shown = [*variants, *([CONTROL] if controlled else [])]
    heads = ["attack", *map(label, shown), "the attacker"]
    defined = {label(v): about(v) for v in shown} | {_called(name): attack.description for name, attack in ATTACKS.items()}
    rows = [
        [_called(name), *(_cell(found.get(v), v) for v in shown), ATTACKS[name].threat_model] for name, found in session.results.items()
    ]
    guessed = any(r.chance for found in session.results.values() for r in found.values())
    note = "<p class=note>* Choices among four options, not answers; what guessing gets right is taken out.</p>" if guessed else ""
    for name, found in session.results.items():
        whys = dict.fromkeys(r.found["not_retrained"] for r in found.values() if "not_retrained" in r.found)
        note += "".join(
            f"<p class=note>{_called(name)}: words were put back, and nothing was retrained after it. {escape(why)}</p>" for why in whys
        )
    return "<p>Right answers on the concept, before and after each attack so far.</p>" + table(heads, rows, defined) + note if rows else ""


def _cell(result, variant):
    """Before and after an attack; of the control, where there is one, what it gives after it."""
    if result is None:
        return ""
    before = "" if variant == CONTROL else f"{result.before:.0%} → "
    return f"{before}{result.after:.0%}{' *' if result.chance else ''}".replace(" ", NO_BREAK)
