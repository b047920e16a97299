"""report.json, and report.html: one self-contained page, pictures before numbers."""

import json
from html import escape

from ember_demo import pictures
from ember_demo.attacks import ATTACKS, THREATS
from ember_demo.concept import KINDS
from ember_demo.loading import POCKET
from ember_demo.pictures import (
    SCROLL,
    amid_others,
    attack_curves,
    definitions,
    feature_cards,
    figure,
    markdown_table,
    score_bars,
    score_table,
    setting,
    step_names,
    table,
    tenths,
    token_chips,
    trace_view,
    trials_picture,
)
from ember_demo.tuning import FIGURES, MIN_KNOWN
from ember_demo.wording import about, label

CSS = (
    pictures.CSS
    + """
body{font:16px/1.5 system-ui,sans-serif;max-width:80rem;margin:2rem auto;padding:0 1rem;color:#1c2430;background:#fff}
p,ul,.bar{max-width:60rem}
h1{font-size:1.7rem}h2{font-size:1.2rem;margin-top:2.2rem}.lead{font-size:1.15rem}
.note{color:#5b6675;opacity:1;overflow-wrap:anywhere}svg{max-width:100%;height:auto}pre{white-space:pre-wrap}
.replies td,.replies th{text-align:left;vertical-align:top}.replies{table-layout:fixed;min-width:44rem;overflow-wrap:anywhere}.replies thead th:first-child{width:22%}
@media screen and (prefers-color-scheme:dark){:root{color-scheme:dark}body{color:#e6e9ee;background:#14181f}.note{color:#a3adbb}
svg{color:#1c2430;background:#fff;border-radius:8px}}
@media print{@page{margin:15mm}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}body{max-width:none;margin:0;padding:0;font-size:10.5pt}
h2,summary{break-after:avoid}svg,tr,.bar,.cards>div,li{break-inside:avoid}thead{display:table-header-group}
.scroll,.tokens{overflow:visible;max-height:none}.scores{font-size:7pt;min-width:0}.scores th,.scores td{padding:.15rem .1rem}}
"""
)


def write_report(report, folder):
    """Write report.json and report.html into the folder."""
    (folder / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    (folder / "report.html").write_text(to_html(report), encoding="utf-8")


GUESSING = "Above guessing: what guessing among four options gets right is taken out, so that 0% is guessing and 100% all right."
RETRAINING = {"relearning": "other facts", "relearning-paragraphs": "paragraphs"}  # on what
TENTH = 0.1  # what counts as something that came back, or as more of it, in a sentence


def warning(report):
    """A sentence where the model hardly knew the concept before, so that the figures say little of erasure; else empty."""
    known = report["variants"].get("original", {}).get("concept_accuracy", 1.0)
    if known >= MIN_KNOWN:
        return ""
    return (
        f"Before any erasure the model answers {known:.0%} of the open questions on {report['concept']} word for word, so these figures say little "
        "about erasure: look at choice accuracy and answer probability among the scores, or choose a model that knows the subject."
    )


def summary(report):
    """The outcome in plain sentences, one a line."""
    lines = [warning(report)] if warning(report) else []
    for name, scores in report["variants"].items():
        lines.append(
            f"{label(name)}: answers {scores['concept_accuracy']:.0%} of the questions on {report['concept']}; "
            f"efficacy {scores['efficacy']:.2f}, specificity {figure(scores['specificity']) or 'not measured'}, coherence {scores['coherence']:.2f}"
            + (f"; {scores['concept_invalid_rate']:.0%} of its answers cannot be read" if scores["concept_invalid_rate"] >= 0.01 else "")
            + (f"; the right one can be read in {scores['concept_mention_rate']:.0%}" if amid_others(scores) >= 0.01 else "")
            + (f"; efficacy on four options {scores['choice_efficacy']:.2f}" if scores["choice_efficacy"] is not None else "")
            + "."
        )
    for attack, results in report["attacks"].items():
        for name, result in results.items():
            if name != "original":
                guessing = ", above guessing" if result["chance"] else ""
                lines.append(f"{attack}, {label(name)}: {result['before']:.0%} before, {result['after']:.0%} after{guessing}.")
    lines += [f"{label(name)} was left out. {why}" for name, why in report.get("skipped", {}).items()]
    return "\n".join(lines)


def strongest(attacks):
    """The attack that got most back from what is erased, above what was left and what it taught the control; None of none.

    attacks: by name, the results by variant, as in report.json. Choices among options count where hardly an answer came back.
    """

    def worth(name):
        most = max((gain(attacks[name], v) for v in attacks[name] if v != "control"), default=0.0)
        return most >= TENTH and not any(r["chance"] for r in attacks[name].values()), most

    return max(attacks, key=worth, default=None)


def gain(results, variant):
    """What an attack got back from a variant above what was left, and above what it taught the control."""
    control = results["control"]["after"] if "control" in results else 0.0
    return results[variant]["after"] - max(results[variant]["before"], control)


def came_back(attacks, shown):
    """What each variant gave before and after the attack `shown`, and after the one that got most answers from it where that is another one, as part
    of a sentence. attacks: as for `strongest`."""
    results = attacks[shown]

    def course(variant, result):
        what = "choices among four, guessing taken out" if result["chance"] else "answers"
        before, after = round(10 * result["before"]), tenths(result["after"])
        gains = {name: gain(found, variant) for name, found in attacks.items() if variant in found and not found[variant]["chance"]}
        worst = max(gains, key=gains.get, default=shown)
        more = gains.get(worst, 0.0) >= max(0.0, gain(results, variant)) + TENTH
        holds = ATTACKS[worst].threat_model
        by_whom = f", whose attacker {holds}" if THREATS.index(holds) > THREATS.index(ATTACKS[shown].threat_model) else ""
        worse = f" ({tenths(attacks[worst][variant]['after'])} under {worst}{by_whom})" if more else ""
        return (f"stays at {after} {what}" if tenths(result["before"]) == after else f"goes from {before} to {after} {what}") + worse

    parts = [f"{label(v)} {course(v, r)}" for v, r in results.items() if v not in ("original", "control")]
    never = f"; a model that never learned it gives {tenths(results['control']['after'])}" if "control" in results else ""
    return ", ".join(parts) + never


def verdict(report):
    """One sentence for a room: what is left after each erasure, and what each gave back under the strongest attack."""
    concept, variants = report["concept"], report["variants"]
    attack = strongest(report["attacks"])
    if attack is None:
        left = ", ".join(f"{label(v)} {tenths(s['concept_accuracy'])}" for v, s in variants.items())
        outcome = (
            f"was erased: of 10 answers on it, {left}"
            if left
            else "was edited; there are no questions on it, so nothing says whether it is gone"
        )
        return f"{concept} {outcome}. No attack was run, so nothing is known of how well that holds."
    how = f"After retraining on {RETRAINING[attack]} about {concept}" if attack in RETRAINING else f"Of {concept}, under {attack}"
    return f"{how}, {came_back(report['attacks'], attack)}."


def limits(report):
    """What the figures of a report do not say, a sentence each, from what was run."""
    concept, tried = report["concept"], report["attacks"]
    untried = [name for name in ATTACKS if name not in tried]
    lines = [f"Erasure is not proof of deletion: a model that no longer answers can still hold something on {concept} in its weights."]
    if tried:
        lines.append(f"Only these attacks were tried, with the settings of this run: {', '.join(tried)}. Others may bring back more.")
    else:
        lines.append("No attack was tried, so nothing is known of how well the erasure holds.")
    if untried:
        lines.append(f"Attacks that this program has and that were not run: {', '.join(untried)}.")
    if tried and not any("control" in results for results in tried.values()):
        lines.append(
            f"No model that never learned {concept} was there to compare with, so what an attack taught is not told from what it got back."
        )
    if report["variants"]:
        lines.append(
            "An open answer counts as right where it is the reference answer or one of its written aliases; case, accents, articles and punctuation do "
            "not matter. A right answer in other words counts as wrong, unless all around it are words of its question, and no person has checked the answers."
        )
        lines.append(
            "Intervals of right answers are 95% Wilson intervals over facts: several wordings of a fact count once. Those of efficacy and specificity "
            "come from drawing the subjects anew (bootstrap), that of coherence from drawing its texts anew. The other figures have none."
        )
        asked = {row["kind"] for row in report["answers"]}
        missing = [text for kind, text in (("similar", "a neighbouring subject"), ("general", "general knowledge")) if kind not in asked]
        if missing:
            lines.append(f"Nothing was asked about {' or '.join(missing)}, so what the erasure costs there is not known.")
        lines.append(f"All of it is one run with seed {report['seed']}; the intervals do not say what another seed would change.")
    if report["model"]["id"] == POCKET:
        lines.append("The embedded model is small and was made for this demo: what holds for it need not hold for a large one.")
    uncovered = report["coverage"]["uncovered"]
    if uncovered and report["edited_tokens"]:
        lines.append(f"EMBER changes no word in the names of these subjects, so it protects nothing known of them: {', '.join(uncovered)}.")
    return lines


def to_html(report):
    """The whole report as one HTML page with no outside resource."""
    concept, model = escape(report["concept"]), report["model"]
    sections = [
        f"<h1>Erasing {concept}</h1>",
        f"<p class=lead>{escape(verdict(report))}</p>" + (f"<p><b>{escape(warning(report))}</b></p>" if warning(report) else ""),
        (
            f"<p class=note>{escape(model['id'])}: {escape(model['architecture'])}, {model['parameters']:,} parameters, "
            f"{escape(model['precision'])}; seed {report['seed']}.</p>"
        ),
    ]
    scored = report["variants"] | ({"control": report["control"]} if report.get("control") else {})
    if scored:
        sections.append("<h2>What each variant still knows</h2>" + score_bars(scored, report["concept"]))
    for attack, results in report["attacks"].items():
        sections.append(
            f"<h2>Under attack: {escape(attack)}</h2>{_about(attack, report)}"
            + _curves(results)
            + _attack_table(results)
            + _came_back(results)
            + _found(results)
        )
    sections += [f"<p class=note>{escape(label(name))} was left out. {escape(why)}</p>" for name, why in report.get("skipped", {}).items()]
    if scored:
        sections.append("<h2>Scores</h2>" + score_table(scored) + definitions(scored) + _answers(report))
    else:
        sections.append("<p>There were no questions on this concept, so nothing was scored.</p>")
    if report.get("trace"):
        sections.append("<h2>Where the knowledge lives</h2>" + trace_view(report["trace"], report["concept"]))
    if report["edited_tokens"]:
        sections.append(_tokens(report))
    if report["delta_trials"]:
        sections.append(_deltas(report))
    sections.append(_searches(report))
    sections.append(f"<h2>Settings</h2><pre>{escape(json.dumps(report['settings'], indent=1))}</pre>")
    sections.append(_made(report))
    sections.append("<h2>Limits, in plain words</h2><ul>" + "".join(f"<li>{escape(line)}</li>" for line in limits(report)) + "</ul>")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Erasing {concept}</title><style>{CSS}</style><body>{''.join(sections)}</body></html>"
    )


def _answers(report):
    """Every test question with what each variant answered, the concept's questions first."""
    names = list(report["variants"])
    kinds = {
        "concept": f"On {report['concept']}",
        "similar": "On a neighbouring subject, to be kept",
        "general": "General knowledge, to be kept",
    }
    groups = []
    for kind in KINDS:
        rows = [row for row in report["answers"] if row["kind"] == kind]
        if rows:
            groups.append(f"<tr><th colspan={2 + len(names)}>{escape(kinds[kind])}: {len(rows)} questions</th></tr>")
        for row in rows:
            cells = [f"<td>{escape(row['question'])}</td><td>{escape(row['reference'])}</td>"]
            for name in names:
                given = row["given"][name]
                mark = "<span role=img title=right>&#10003;</span>" if given["right"] else "<span role=img title=wrong>&#10007;</span>"
                cells.append(f"<td>{mark} {escape(given['text'])}</td>")
            groups.append(f"<tr>{''.join(cells)}</tr>")
    heads = "".join(f"<th>{escape(head)}</th>" for head in ("question", "reference answer", *map(label, names)))
    return (
        f"<details><summary>All {len(report['answers'])} questions with every answer</summary>{SCROLL}<table class='scores replies'>"
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(groups)}</tbody></table></div></details>"
    )


def _made(report):
    """How long it took, and when, on what and with which versions it was made."""
    made, lines = report["made"], []
    if report["seconds"]:
        lines.append(f"Seconds: {', '.join(f'{k} {v:.0f}' for k, v in report['seconds'].items())}.")
    lines.append(f"Made {made['date']} on {made['platform']} with {', '.join(f'{k} {v}' for k, v in made['versions'].items())}.")
    lines.append(f"Fingerprint of the model's weights: {report['model']['fingerprint']}.")
    lines.append("SHA-256 of " + "; ".join(f"{label(name).replace('_', ' ')}: {value}" for name, value in report["hashes"].items()) + ".")
    if report.get("command"):
        lines.append(f"To repeat it: {report['command']}")
    return "".join(f"<p class=note>{escape(line)}</p>" for line in lines)


def _about(attack, report):
    """What an attack does, and what the attacker has."""
    known = ATTACKS.get(attack)
    if not known:
        return ""
    facts = f", and {report['facts_to_train_on']} facts of the concept to train on" if known.trains_on_facts else ""
    return f"<p>{escape(known.description)} The attacker {escape(known.threat_model)}{facts}.</p>"


def _curves(results):
    guessed = any(r["chance"] for r in results.values())
    return attack_curves({n: r["curve"] for n, r in results.items()}, step_names([r["steps"] for r in results.values()]), guessed)


def _attack_table(results):
    groups = {"after_covered": "after, subjects EMBER edits", "after_uncovered": "after, subjects it leaves alone"}
    groups = {key: head for key, head in groups.items() if any(key in r for r in results.values())}
    rows = []
    for name, r in results.items():
        low, high = r["interval"]
        guessing = " above guessing" if r["chance"] else ""
        cells = [label(name), f"{r['before']:.0%}", f"{r['after']:.0%}{guessing}", f"{low:.0%} to {high:.0%}", f"{r['invalid'][-1]:.0%}"]
        cells += [f"{r[key]:.0%}" if key in r else "" for key in groups]
        rows.append(cells)
    heads = [
        "variant",
        "before",
        "after",
        "95% interval",
        "unreadable answers, after",
        *groups.values(),
    ]
    return table(heads, rows, {label(name): about(name) for name in results}) + (
        f"<p class=note>{GUESSING}</p>" if any(r["chance"] for r in results.values()) else ""
    )


def _came_back(results):
    """The facts that each variant gives again, with the tokens of their subjects."""
    parts = []
    for name, result in results.items():
        rows = [
            [f["subject"], f["relation"], f["answer"], ", ".join(f["edited"]) or "none", ", ".join(f["untouched"]) or "none"]
            for f in result.get("facts", [])
            if f["right"] > 0.5 >= (f["before"] or 0.0)
        ]
        if rows:
            left = sum((f["before"] or 0.0) > 0.5 for f in result["facts"])
            known = f"; {left} had been left" if left else ""
            heads = ["subject", "kind of fact", "answer", "its tokens that EMBER edits", "its other tokens"]
            parts.append(
                f"<details><summary>What came back from {escape(label(name))}: {len(rows)} of {len(result['facts'])} facts{known}</summary>"
                f"{table(heads, rows)}</details>"
            )
    return "".join(parts)


def _found(results):
    """What the attack found out on each variant, such as which of its ways was the best."""
    found = {label(name): result["found"] for name, result in results.items() if result.get("found")}
    return (
        f"<details><summary>What it found out on the way</summary><pre>{escape(json.dumps(found, indent=1))}</pre></details>"
        if found
        else ""
    )


def _tokens(report):
    covered, uncovered = report["coverage"]["covered"], report["coverage"]["uncovered"]
    return (
        f"<h2>The features that were found</h2>{feature_cards(report['features'])}"
        f"<h2>The {len(report['edited_tokens'])} tokens that EMBER changes</h2><p>Each was seen in texts on {escape(report['concept'])} "
        "and in none of the neutral ones. Generic words can be among them. Point at one for the size of its change.</p>"
        f"{token_chips(report['edited_tokens'])}<p>Of the subjects asked about, {len(covered)} have such a token and "
        f"{len(uncovered)} have none{': ' + escape(', '.join(uncovered)) if uncovered else ''}.</p>"
    )


def _deltas(report):
    rows = [[f"{t['delta']:g}"] + [figure(t[k]) for k in FIGURES] + ["yes" if t["within_limits"] else "no"] for t in report["delta_trials"]]
    heads = ["delta", "efficacy", "specificity", "general ability", "coherence", "overall", "within limits"]
    about = (
        "On validation questions, which score nothing else. General ability: right answers to general questions, against the original; 1 where there "
        "are none. Within limits: general ability and coherence are at least 0.9."
    )
    return f"<h2>How delta was chosen</h2><p>{about}{_by_probability(report['delta_trials'])}</p>" + table(heads, rows)


def _by_probability(trials):
    """Says so where what is lost and kept is not read off the answers of these trials."""
    if not any("probability" in trial.get("kept_of", "") for trial in trials):
        return ""
    return " The original hardly answers word for word, so what is lost and kept is here that of the right answers' probability."


def trials_table(trials):
    """A search's trials as Markdown, best first."""
    names = list(trials[0]["settings"]) if trials else []
    rows = []
    for trial in sorted(trials, key=lambda t: (not t["within_limits"], -t["overall"])):
        cells = [setting(v) for v in trial["settings"].values()] + [figure(trial[k]) for k in FIGURES]
        rows.append([*cells, "yes" if trial["within_limits"] else "no"])
    return markdown_table([*names, *FIGURES, "within limits"], rows)


def _searches(report):
    """How each eraser's settings were searched."""
    parts = []
    for name, trials in report.get("searches", {}).items():
        names = list(trials[0]["settings"]) if trials else []
        rows = [[setting(v) for v in t["settings"].values()] + [figure(t[k]) for k in FIGURES] for t in trials]
        parts.append(
            f"<h2>How the settings of {escape(label(name))} were found</h2><p>Overall score on validation questions, which score nothing else, trial by "
            "trial; a hollow dot hurt the model's other abilities or its fluency by more than a tenth. The line is the best so far."
            f"{_by_probability(trials)}</p>"
            f"{trials_picture(trials)}<details><summary>All trials</summary>{table([*names, *FIGURES], rows)}</details>"
        )
    return "".join(parts)
