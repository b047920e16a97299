"""report.json, and report.html: one self-contained page, pictures before numbers."""

import itertools
import json
from html import escape

from ember_demo.memory import WORDS, size
from ember_demo.tuning import FIGURES
from ember_demo.wording import COLORS, DEFINITIONS, label

PIECES_CSS = """
.bar{display:grid;grid-template-columns:11rem 1fr 11.5rem;gap:.6rem;align-items:center;margin:.4rem 0}
.bar .track{background:rgba(127,127,127,.18);border-radius:4px;height:1.1rem;display:block;overflow:hidden}.bar .fill{display:block;height:100%}
.bar small{opacity:.75}.tokens{max-height:15rem;overflow-y:auto}.tokens .generic{outline:1px dashed currentColor}.tokens span{display:inline-block;background:rgba(127,127,127,.16);border-radius:4px;padding:0 .4rem;margin:.15rem;font-size:.9rem}
.scores{border-collapse:collapse;width:100%;font-size:.92rem}.scores th,.scores td{padding:.35rem .6rem;border-bottom:1px solid rgba(127,127,127,.3);text-align:right}
.scores th:first-child,.scores td:first-child{text-align:left}.scores abbr{text-decoration:underline dotted;cursor:help}.scroll{overflow-x:auto}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:.7rem}.cards>div{border:1px solid rgba(127,127,127,.35);border-radius:8px;padding:.6rem .8rem}
@media(max-width:40rem){.bar{grid-template-columns:7rem 1fr 4.2rem;font-size:.9rem}}
"""
CSS = (
    PIECES_CSS
    + """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2430;background:#fff}
h1{font-size:1.7rem}h2{font-size:1.2rem;margin-top:2.2rem}.lead{font-size:1.15rem}
.note{color:#5b6675}svg{max-width:100%;height:auto}
"""
)


def write_report(report, folder):
    """Write report.json and report.html into the folder."""
    (folder / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    (folder / "report.html").write_text(to_html(report), encoding="utf-8")


RETRAINING = ("relearning", "relearning-paragraphs")
LITTLE = 0.1  # right answers under which a model can hardly be said to know a concept


def warning(report):
    """A sentence where the model hardly knew the concept before, so that the figures say little of erasure; else empty."""
    known = report["variants"].get("original", {}).get("concept_accuracy", 1.0)
    if known >= LITTLE:
        return ""
    return (
        f"Before any erasure the model answers {known:.0%} of the open questions on {report['concept']} word for word, so these figures say little "
        "about erasure: look at the four options and the answers' probability, or choose a model that knows the subject."
    )


def summary(report):
    """The outcome in plain sentences, one a line."""
    lines = [warning(report)] if warning(report) else []
    for name, scores in report["variants"].items():
        lines.append(
            f"{label(name)}: answers {scores['concept_accuracy']:.0%} of the questions on {report['concept']}; "
            f"efficacy {scores['efficacy']:.2f}, specificity {scores['specificity']:.2f}, coherence {scores['coherence']:.2f}."
        )
    for attack, results in report["attacks"].items():
        for name, result in results.items():
            if name != "original":
                lines.append(f"{attack}, {label(name)}: {result['before']:.0%} before, {result['after']:.0%} after.")
    lines += [f"{attack} was left out. {why}" for attack, why in report.get("skipped", {}).items()]
    return "\n".join(lines)


def verdict(report, attack=None):
    """One sentence for a room: what each erasure gave back under an attack, the first by default."""
    if not report["attacks"]:
        return f"{report['concept']} was erased; no attack was run, so nothing is known of how well it holds."
    attack = attack or next(iter(report["attacks"]))
    results = report["attacks"][attack]
    parts = [f"{label(name)} gave {r['after']:.0%} of the answers" for name, r in results.items() if name not in ("original", "control")]
    how = f"After retraining on other material about {report['concept']}" if attack in RETRAINING else f"Under {attack}"
    sentence = f"{how}, {', '.join(parts)}"
    if "control" in results:
        sentence += f"; a model that never learned it reaches {results['control']['after']:.0%}"
    return sentence + "."


def to_html(report):
    """The whole report as one HTML page with no outside resource."""
    concept, model = escape(report["concept"]), report["model"]
    sections = [
        f"<h1>Erasing {concept}</h1>",
        f"<p class=lead>{escape(verdict(report))}</p>" + (f"<p><b>{escape(warning(report))}</b></p>" if warning(report) else ""),
        f"<p class=note>{escape(model['id'])}: {escape(model['architecture'])}, {model['parameters']:,} parameters, "
        f"{escape(model['precision'])}; seed {report['seed']}.</p>",
    ]
    if report["variants"]:
        sections.append("<h2>What each variant still knows</h2>" + score_bars(report["variants"], report["concept"]))
    for attack, results in report["attacks"].items():
        sections.append(f"<h2>Under attack: {escape(attack)}</h2>" + _curves(results) + _attack_table(results) + _came_back(results))
    sections += [f"<p class=note>{escape(attack)} was left out. {escape(why)}</p>" for attack, why in report.get("skipped", {}).items()]
    if report["variants"]:
        sections.append("<h2>Scores</h2>" + score_table(report["variants"]) + definitions())
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
    sections.append(f"<p class=note>Seconds: {escape(', '.join(f'{k} {v:.0f}' for k, v in report['seconds'].items()))}.</p>")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Erasing {concept}</title><style>{CSS}</style><body>{''.join(sections)}</body></html>"
    )


def memory_bars(offer):
    """What a model needs here, by kind of work, beside what is free: one bar each, and the plan in a sentence."""
    plan, lines = offer.plan, []
    top = max(plan.free, *(sum(parts.values()) for parts in plan.needs.values()))
    for work, parts in plan.needs.items():
        total = sum(parts.values())
        fits = plan.fits[work]
        color, verdict = ("#0072b2", "fits") if fits else ("#d55e00", "does not fit")
        lines.append(
            f"<div class=bar><span>{escape(WORDS[work].capitalize())}</span><span class=track><span class=fill "
            f"style='width:{100 * total / top:.1f}%;background:{color}'></span></span><span>{size(total)} <small>{verdict}</small></span></div>"
        )
    lines.append(
        f"<div class=bar><span>Free here</span><span class=track><span class=fill style='width:{100 * plan.free / top:.1f}%;background:#6b7280'>"
        f"</span></span><span>{size(plan.free)}</span></div>"
    )
    return f"<p>{escape(offer.sentence)}</p><details><summary>What each step needs</summary>{''.join(lines)}</details>"


def score_bars(variants, concept):
    """Share of right answers on the concept as bars, one a variant, with its interval. `variants` as in report.json."""
    rows = []
    for name, scores in variants.items():
        share, (low, high) = scores["concept_accuracy"], scores["concept_interval"]
        rows.append(
            f"<div class=bar><span>{escape(label(name))}</span><span class=track><span class=fill "
            f"style='width:{share:.1%};background:{COLORS.get(name, '#667')}'></span></span>"
            f"<span><b>{share:.0%}</b> <small title='95% interval'>({low:.0%} to {high:.0%})</small></span></div>"
        )
    return f"<p>Right answers to questions on {escape(concept)}, with 95% intervals.</p>" + "".join(rows)


def score_table(variants):
    """The metrics as a table, each head with its definition on hover. `variants` as in report.json."""
    keys = [key for key in DEFINITIONS if any(key.replace(" ", "_") in s for s in variants.values())]
    heads = "".join(f"<th><abbr title='{escape(DEFINITIONS[k], quote=True)}'>{escape(k)}</abbr></th>" for k in keys)
    rows = []
    for name, scores in variants.items():
        values = (scores.get(k.replace(" ", "_")) for k in keys)
        cells = "".join(f"<td>{'' if v is None else f'{v:.2f}'}</td>" for v in values)
        rows.append(f"<tr><td>{escape(label(name))}</td>{cells}</tr>")
    return f"<div class=scroll><table class=scores><tr><th>variant</th>{heads}</tr>{''.join(rows)}</table></div>"


def definitions():
    """Every metric in plain words, as a list."""
    items = "".join(f"<li><b>{escape(k)}</b>: {escape(v)}</li>" for k, v in DEFINITIONS.items())
    return f"<details><summary>What these words mean</summary><ul>{items}</ul></details>"


def token_chips(tokens):
    """Tokens that an edit changes, the most changed first; what is known of the change on hover; generic ones with a dashed edge."""
    chips = []
    for token in sorted(tokens, key=lambda t: -t.get("relative_change", 0)):
        about = []
        if "relative_change" in token:
            about.append(f"changed by {token['relative_change']:.1f} times its own length")
        if "before" in token:
            about.append(f"nearest before: {', '.join(token['before'])}; after: {', '.join(token['after'])}")
        if token.get("generic"):
            about.append("looks like an everyday word")
        css = " class=generic" if token.get("generic") else ""
        chips.append(f"<span{css} title='{escape('; '.join(about), quote=True)}'>{escape(token['token']) or '&nbsp;'}</span>")
    generic = sum(bool(t.get("generic")) for t in tokens)
    note = f"<p class=note>{generic} of {len(tokens)} look like everyday words (dashed).</p>" if generic else ""
    return f"<p class=tokens>{''.join(chips)}</p>{note}"


def trace_picture(trace, cell=52, left=120, top=30):
    """A causal trace as a heat map: the later a layer, the further right; the darker, the more of the answer comes back from there alone."""
    rows, layers = trace["places"], len(trace["restored"])
    wide = max(26, min(cell, 900 // layers))
    width, height = left + wide * layers + 20, top + 40 * len(rows) + 40
    parts = [f"<svg viewBox='0 0 {width} {height}' role=img aria-label='How much of the answer comes back, by layer and word'>"]
    for r, place in enumerate(rows):
        parts.append(f"<text x={left - 8} y={top + 40 * r + 25} font-size=12 text-anchor=end fill='currentColor'>{escape(place)}</text>")
        for n in range(layers):
            share = trace["restored"][n][r]
            parts.append(
                f"<rect x={left + wide * n} y={top + 40 * r} width={wide - 2} height=38 fill='{COLORS['ember+rmu']}' "
                f"fill-opacity='{max(0.04, min(1, share)):.2f}'><title>{share:.0%} comes back</title></rect>"
            )
    for n in range(layers):
        name = "words" if n == 0 else str(n)
        parts.append(
            f"<text x={left + wide * (n + 0.5)} y={top + 40 * len(rows) + 16} font-size=11 text-anchor=middle fill='currentColor'>{name}</text>"
        )
    parts.append(
        f"<text x={left + wide * layers / 2} y={height - 6} font-size=12 text-anchor=middle fill='currentColor'>layer after which the states are put "
        "back</text></svg>"
    )
    return "".join(parts)


def trace_view(trace, concept):
    """Where the knowledge lives: the heat map, and what is lost without the words and without the MLPs."""
    known = trace["known"]

    def lost(value):
        return f"{max(0.0, 1 - value / known):.0%}" if known else "nothing"

    return (
        f"<p>How likely the right answers to {trace['questions']} questions on {escape(concept)} are: {known:.0%} a token. With noise in place of the "
        f"subject's words {trace['corrupted']:.0%}. The map shows how much comes back where the inner states are put right at one place and layer only: "
        "dark on the left and above, the words themselves carry it; dark further right, it has moved on.</p>"
        f"{trace_picture(trace)}<p>With an average word in the place of the subject's, {lost(trace['without_words'])} of that likelihood is lost; with "
        f"the average in the place of what the MLP layers make of these words, {lost(trace['without_mlps'])}. An erasure that changes only one of the "
        "two leaves what the other holds.</p>"
    )


def feature_cards(features, limit=12):
    """Features as cards: top tokens and how much of each is the concept's own."""
    cards = []
    for feature in features[:limit]:
        words = escape(", ".join(feature["tokens"][:10]))
        cards.append(f"<div><b>{feature['share']:.0%} the concept's own</b><br><small>{words}</small></div>")
    more = f"<p class=note>... and {len(features) - limit} more.</p>" if len(features) > limit else ""
    return f"<div class=cards>{''.join(cards)}</div>{more}"


def attack_curves(curves, steps, width=720, height=300, left=46, top=12, bottom=30, right=40):
    """Right answers after each step of an attack as an SVG line a variant, with a legend.

    curves: list of shares by variant name, as far as known. steps: the names of all points.
    """

    def x(number):
        return left + (width - left - right) * number / max(1, len(steps) - 1)

    def y(share):
        return top + (height - top - bottom) * (1 - share)

    parts = [f"<svg viewBox='0 0 {width} {height}' role=img aria-label='Right answers by step of the attack'>"]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f"<line x1={left} x2={width - right} y1={y(tick):.1f} y2={y(tick):.1f} stroke='currentColor' opacity='.15'></line>")
        parts.append(f"<text x={left - 6} y={y(tick) + 4:.1f} font-size=12 text-anchor=end fill='currentColor'>{tick:.0%}</text>")
    for number, step in enumerate(steps):
        parts.append(f"<text x={x(number):.1f} y={height - 8} font-size=12 text-anchor=middle fill='currentColor'>{escape(step)}</text>")
    legend = []
    for name, curve in curves.items():
        color = COLORS.get(name, "#667")
        line = " ".join(f"{x(e):.1f},{y(a):.1f}" for e, a in enumerate(curve))
        dash = " stroke-dasharray='6 4'" if name == "control" else ""
        parts.append(f"<polyline points='{line}' fill='none' stroke='{color}' stroke-width='2.5'{dash}></polyline>")
        parts += [f"<circle cx='{x(e):.1f}' cy='{y(a):.1f}' r='3.5' fill='{color}'></circle>" for e, a in enumerate(curve)]
        legend.append(f"<span style='color:{color}'>&#9679;</span> {escape(label(name))}")
    return "".join(parts) + "</svg><p class=legend>" + " &nbsp; ".join(legend) + "</p>"


def step_names(lists):
    """One name for each point of the curves of an attack; where variants fell to different ways, it is the best found of each."""
    columns = itertools.zip_longest(*lists)
    return [names.pop() if len(names) == 1 else "best way found" for names in ({n for n in c if n} for c in columns)]


def _curves(results):
    return attack_curves({n: r["curve"] for n, r in results.items()}, step_names([r["steps"] for r in results.values()]))


def _attack_table(results):
    rows = []
    for name, r in results.items():
        low, high = r["interval"]
        cells = [label(name), f"{r['before']:.0%}", f"{r['after']:.0%}", f"{low:.0%} to {high:.0%}"]
        cells += [f"{r[key]:.0%}" if key in r else "" for key in ("after_covered", "after_uncovered")]
        rows.append(cells)
    heads = ["variant", "before", "after", "95% interval", "after, subjects EMBER edits", "after, subjects it leaves alone"]
    return _table(heads, rows)


def _came_back(results):
    """The facts that each protected variant gives again, with the tokens of their subjects."""
    parts = []
    for name, result in results.items():
        rows = [
            [f["subject"], f["relation"], f["answer"], ", ".join(f["edited"]) or "none", ", ".join(f["untouched"]) or "none"]
            for f in result.get("facts", [])
            if f["right"] > 0.5
        ]
        if name.startswith("ember") and rows:
            heads = ["subject", "kind of fact", "answer", "its tokens that EMBER edits", "its other tokens"]
            parts.append(
                f"<details><summary>What came back from {escape(label(name))}: {len(rows)} of {len(result['facts'])} facts</summary>"
                f"{_table(heads, rows)}</details>"
            )
    return "".join(parts)


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
    rows = [
        [f"{t['delta']:g}"]
        + [f"{t[k]:.2f}" for k in ("efficacy", "specificity", "ability", "coherence", "overall")]
        + ["yes" if t["within_limits"] else "no"]
        for t in report["delta_trials"]
    ]
    heads = ["delta", "efficacy", "specificity", "general ability", "coherence", "overall", "within limits"]
    return "<h2>How delta was chosen</h2><p>On validation questions, which score nothing else.</p>" + _table(heads, rows)


def trials_table(trials):
    """A search's trials as Markdown, best first."""
    names = list(trials[0]["settings"]) if trials else []
    lines = ["| " + " | ".join([*names, *FIGURES, "within limits"]) + " |", "|---" * (len(names) + len(FIGURES) + 1) + "|"]
    for trial in sorted(trials, key=lambda t: (not t["within_limits"], -t["overall"])):
        cells = [f"{v:.3g}" for v in trial["settings"].values()] + [f"{trial[k]:.2f}" for k in FIGURES]
        lines.append("| " + " | ".join([*cells, "yes" if trial["within_limits"] else "no"]) + " |")
    return "\n".join(lines)


def trials_picture(trials, width=720, height=220, left=46, right=20, top=12, bottom=30):
    """A search as a picture: the overall score of every trial, hollow where it hurt the model too much, and the best so far as a line."""

    def x(number):
        return left + (width - left - right) * number / max(1, len(trials) - 1)

    def y(share):
        return top + (height - top - bottom) * (1 - share)

    parts = [f"<svg viewBox='0 0 {width} {height}' role=img aria-label='Overall score by trial of the search'>"]
    for tick in (0, 0.5, 1):
        parts.append(f"<line x1={left} x2={width - right} y1={y(tick):.1f} y2={y(tick):.1f} stroke='currentColor' opacity='.15'></line>")
        parts.append(f"<text x={left - 6} y={y(tick) + 4:.1f} font-size=12 text-anchor=end fill='currentColor'>{tick:g}</text>")
    best, line = 0.0, []
    for number, trial in enumerate(trials):
        best = max(best, trial["overall"] if trial["within_limits"] else 0.0)
        line.append(f"{x(number):.1f},{y(best):.1f}")
        fill = COLORS["ember"] if trial["within_limits"] else "none"
        about = escape(", ".join(f"{k} {v:.3g}" for k, v in trial["settings"].items()))
        parts.append(
            f"<circle cx='{x(number):.1f}' cy='{y(trial['overall']):.1f}' r='4' fill='{fill}' stroke='{COLORS['ember+rmu']}'>"
            f"<title>{about}</title></circle>"
        )
    parts.append(f"<polyline points='{' '.join(line)}' fill='none' stroke='{COLORS['ember+rmu']}' stroke-width='2'></polyline>")
    parts.append(
        f"<text x={(left + width) / 2} y={height - 8} font-size=12 text-anchor=middle fill='currentColor'>trials, in order</text></svg>"
    )
    return "".join(parts)


def _searches(report):
    """How each eraser's settings were searched."""
    parts = []
    for name, trials in report.get("searches", {}).items():
        names = list(trials[0]["settings"]) if trials else []
        rows = [[f"{v:.3g}" for v in t["settings"].values()] + [f"{t[k]:.2f}" for k in FIGURES] for t in trials]
        parts.append(
            f"<h2>How the settings of {escape(label(name))} were found</h2><p>Overall score on validation questions, which score nothing else, trial by "
            "trial; a hollow dot hurt the model's other abilities or its fluency by more than a tenth. The line is the best so far.</p>"
            f"{trials_picture(trials)}<details><summary>All trials</summary>{_table([*names, *FIGURES], rows)}</details>"
        )
    return "".join(parts)


def _table(heads, rows):
    head = "".join(f"<th>{escape(h)}</th>" for h in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f"<div class=scroll><table class=scores><tr>{head}</tr>{body}</table></div>"
