"""Pieces of pages as HTML and SVG text, for page and report alike: pictures before numbers, a definition beside every figure. And tables in Markdown."""

import itertools
from html import escape
from types import MappingProxyType

from ember_demo.memory import WORDS, size
from ember_demo.wording import COLORS, DEFINITIONS, about, color, dash, label

SCROLL = "<div class=scroll tabindex=0 role=group aria-label='Table'>"  # by the keyboard too
CSS = """
.bar{display:grid;grid-template-columns:11rem 1fr 11.5rem;gap:.6rem;align-items:center;margin:.4rem 0}
.bar .track{background:rgba(127,127,127,.18);border-radius:4px;height:1.1rem;display:block;overflow:hidden}.bar .fill{display:block;height:100%}
.cards+details{margin-top:.6rem}.bar .left{display:block;height:3px;margin-top:2px;border-radius:2px;background:#6b7280}.bar small{opacity:.75}.tokens{max-height:15rem;overflow-y:auto}.tokens .generic{outline:1px dashed currentColor}.tokens span{display:inline-block;background:rgba(127,127,127,.16);border-radius:4px;padding:0 .4rem;margin:.15rem;font-size:.9rem}
.scores{border-collapse:collapse;width:100%;font-size:.92rem}.scores th,.scores td{padding:.35rem .6rem;border-bottom:1px solid rgba(127,127,127,.3);text-align:right}
.scores th:first-child,.scores td:first-child{text-align:left}.bar abbr,.legend abbr,.scores abbr{text-decoration:underline dotted;cursor:help}.scroll{overflow-x:auto;width:0;min-width:100%}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,15rem),1fr));gap:.7rem}.cards>div{border:1px solid rgba(127,127,127,.35);border-radius:8px;padding:.6rem .8rem}
.back{background:repeating-linear-gradient(45deg,var(--c) 0 4px,transparent 4px 8px)!important}.bar .track{display:flex}.legend,.note{opacity:.85}
svg.sample{display:inline-block;width:2.4rem;height:.6rem;vertical-align:middle}.legend span{white-space:nowrap}svg[role=img]{max-width:48rem;width:100%;height:auto;display:block}
.maps{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,18rem),1fr));gap:1rem}.maps figure{margin:0}.maps svg{border:1px solid rgba(127,127,127,.35);border-radius:8px;width:100%;height:auto}
.talk section{margin:0 0 1.4rem}.talk h2{font-size:1.05rem;margin:.2rem 0 .5rem}.talk .reference{font-weight:normal;opacity:.85;margin-left:.6rem}
.answers{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,11rem),1fr));gap:.7rem}.answer{border:1px solid rgba(127,127,127,.35);border-top:4px solid;border-radius:8px;padding:.5rem .7rem}
.answer p{margin:.35rem 0;overflow-wrap:anywhere}.who{font-weight:600}.who small{display:block;font-weight:normal;opacity:.8}.right,.wrong{font-size:.9rem;font-weight:600}
@media(max-width:40rem){svg text{font-size:22px}.bar{grid-template-columns:7rem 1fr 4.2rem;font-size:.9rem}.scores{font-size:.75rem}.scores th,.scores td{padding:.35rem .2rem}}
"""


def term(words, definition):
    """Words with their definition on hover."""
    return f"<abbr title='{escape(definition, quote=True)}'>{escape(words)}</abbr>" if definition else escape(words)


def named(variant):
    """A variant's name with what it is on hover."""
    return term(label(variant), about(variant))


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
        unreadable = f"<br><small>{scores['concept_invalid_rate']:.0%} unreadable</small>" if scores["concept_invalid_rate"] >= 0.01 else ""
        amid = f"<br><small>{amid_others(scores):.0%} right among other words</small>" if amid_others(scores) >= 0.01 else ""
        rows.append(
            f"<div class=bar><span>{named(name)}</span><span class=track><span class=fill "
            f"style='width:{share:.1%};background:{color(name)}'></span></span>"
            f"<span><b>{share:.0%}</b> <small title='95% interval'>({low:.0%} to {high:.0%})</small>{unreadable}{amid}</span></div>"
        )
    note = (
        "Unreadable: an answer without an end, or empty. Right among other words: the right answer can be read in it, with something else around. "
        "Both count as wrong, but are not erasure."
    )
    return f"<p>Right answers to questions on {escape(concept)}, with 95% intervals. {note}</p>" + "".join(rows)


def amid_others(scores):
    """Share of answers on the concept that count as wrong although the right one can be read in them. `scores` as in report.json."""
    return scores["concept_mention_rate"] - scores["concept_accuracy"]


def score_table(variants):
    """The metrics as a table, with intervals where there are some, each head with its definition on hover. `variants` as in report.json."""
    keys = [key for key in DEFINITIONS if any(key.replace(" ", "_") in s for s in variants.values())]
    heads = "".join(f"<th>{term(k, DEFINITIONS[k])}</th>" for k in keys)
    rows = []
    for name, scores in variants.items():
        intervals = scores.get("intervals", {})
        cells = "".join(f"<td>{figure(scores.get(k.replace(' ', '_')))}{_interval(intervals.get(k))}</td>" for k in keys)
        rows.append(f"<tr><td>{named(name)}</td>{cells}</tr>")
    return f"{SCROLL}<table class=scores><tr><th>variant</th>{heads}</tr>{''.join(rows)}</table></div>"


def figure(value):
    """A figure as tables show it; empty where it was not measured."""
    return "" if value is None else f"{value:.2f}"


def setting(value):
    """A setting as tables show it: a number, or a word such as the layers "0-8"."""
    return value if isinstance(value, str) else f"{value:.3g}"


def _interval(ends):
    return f"<br><small title='95% interval'>({ends[0]:.2f} to {ends[1]:.2f})</small>" if ends else ""


def definitions(variants):
    """These variants and every metric in plain words, as a list."""
    words = {label(v): about(v) for v in variants} | DEFINITIONS
    items = "".join(f"<li><b>{escape(k)}</b>: {escape(v)}</li>" for k, v in words.items() if v)
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
    return f"<p class=tokens tabindex=0 role=group aria-label='Words that are changed'>{''.join(chips)}</p>{note}"


def trace_picture(trace, cell=84, left=230, top=10):
    """A causal trace as a heat map: the later a layer, the further right; the stronger the colour, the more of the answer comes back from there alone."""
    rows, layers = trace["places"], len(trace["restored"])
    wide = max(26, min(cell, 900 // layers))
    width, height = left + wide * layers + 20, top + 40 * len(rows) + 24
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
    return "".join(parts) + "</svg><p class=note>From left to right: the layer after which the states are put right.</p>"


def trace_view(trace, concept):
    """Where the knowledge lives: the heat map, and what is lost without the words and without the MLPs."""
    known = trace["known"]

    def lost(value):
        return f"{max(0.0, 1 - value / known):.0%}" if known else "nothing"

    return (
        f"<p>The model gives each piece of the right answers to {trace['questions']} questions on {escape(concept)} {known:.0%} on average; with noise in "
        f"place of the subject's words {trace['corrupted']:.0%}. The map shows how much comes back where the inner states are put right at one place and layer only, "
        "the stronger the colour the more. The first square is always full, as it puts the words themselves right; from there the colour moves on.</p>"
        f"{trace_picture(trace)}<p>With an average word in the place of the subject's, {lost(trace['without_words'])} of that likelihood is lost; with "
        f"the average in the place of what the layers look up on these words (in their MLPs), {lost(trace['without_mlps'])}. An erasure that changes only one of the "
        "two leaves what the other holds.</p>"
    )


def feature_cards(features, limit=12):
    """Features as cards: top tokens and how much of each is the concept's own."""
    cards = []
    for feature in features[:limit]:
        words = escape(", ".join(feature["tokens"][:10]))
        judge = (
            f"<br><small>{escape(feature['description'])} (the judge is {feature['confidence']:.0%} sure)</small>"
            if "confidence" in feature
            else ""
        )
        strength = f", activation {feature['strength']:.3g}" if "strength" in feature else ""
        cards.append(f"<div><b>{feature['share']:.0%} the concept's own{strength}</b><br><small>{words}</small>{judge}</div>")
    more = f"<p class=note>... and {len(features) - limit} more.</p>" if len(features) > limit else ""
    return f"<div class=cards>{''.join(cards)}</div>{more}"


def attack_curves(curves, steps, guessed=False, width=720, height=300, left=66, top=12, bottom=30, right=52):
    """Right answers after each step of an attack as an SVG line a variant, with a legend.

    curves: list of shares by variant name, as far as known. steps: the names of all points. guessed: whether they are choices among options, with chance
    taken out, so that 0% is guessing; of open answers guessing gets none right.
    """

    x, y = _scales(len(steps), width, height, left, right, top, bottom)
    parts = [f"<svg viewBox='0 0 {width} {height}' role=img aria-label='Right answers by step of the attack'>"]
    parts.append(_ticks(width, left, right, y))
    for number, step in enumerate(steps):
        anchor = "start" if number == 0 else "end" if number == len(steps) - 1 else "middle"  # long names stay inside the picture
        parts.append(f"<text x={x(number):.1f} y={height - 8} font-size=12 text-anchor={anchor} fill='currentColor'>{escape(step)}</text>")
    if guessed:
        parts.append(f"<text x={left + 4} y={y(0) - 5:.1f} font-size=11 fill='currentColor' opacity='.8'>0% is guessing</text>")
    legend = []
    for name, curve in curves.items():
        line = " ".join(f"{x(e):.1f},{y(a):.1f}" for e, a in enumerate(curve))
        look = f"stroke='{color(name)}' stroke-width='2.5' stroke-dasharray='{dash(name)}'"
        parts.append(f"<polyline points='{line}' fill='none' {look}></polyline>")
        parts += [f"<circle cx='{x(e):.1f}' cy='{y(a):.1f}' r='3.5' fill='{color(name)}'></circle>" for e, a in enumerate(curve)]
        legend.append(_sample(look, named(name)))
    return "".join(parts) + "</svg><p class=legend>" + " &nbsp; ".join(legend) + "</p>"


def _sample(look, words):
    """An entry of a legend: a piece of the line, and what it stands for."""
    return f"<span><svg class=sample viewBox='0 0 34 8' aria-hidden=true><line x1=1 x2=33 y1=4 y2=4 {look}></line></svg> {words}</span>"


def step_names(lists):
    """One name for each point of the curves of an attack; where variants fell to different ways, it is the best found of each."""
    columns = itertools.zip_longest(*lists)
    return [names.pop() if len(names) == 1 else "best way found" for names in ({n for n in c if n} for c in columns)]


def trials_picture(trials, width=720, height=220, left=66, right=20, top=12, bottom=30):
    """A search as a picture: the overall score of every trial, hollow where it hurt the model too much, and the best so far as a line."""

    x, y = _scales(len(trials), width, height, left, right, top, bottom)
    parts = [
        f"<svg viewBox='0 0 {width} {height}' role=img aria-label='Overall score by trial of the search'>",
        _ticks(width, left, right, y),
    ]
    best, line = 0.0, []
    for number, trial in enumerate(trials):
        best = max(best, trial["overall"] if trial["within_limits"] else 0.0)
        line.append(f"{x(number):.1f},{y(best):.1f}")
        fill = COLORS["ember"] if trial["within_limits"] else "none"
        about = escape(", ".join(f"{k} {setting(v)}" for k, v in trial["settings"].items()))
        parts.append(
            f"<circle cx='{x(number):.1f}' cy='{y(trial['overall']):.1f}' r='4' fill='{fill}' stroke='{COLORS['ember+rmu']}'>"
            f"<title>{about}</title></circle>"
        )
    parts.append(f"<polyline points='{' '.join(line)}' fill='none' stroke='{COLORS['ember+rmu']}' stroke-width='2'></polyline>")
    parts.append(
        f"<text x={(left + width) / 2} y={height - 8} font-size=12 text-anchor=middle fill='currentColor'>trials, in order</text></svg>"
    )
    return "".join(parts)


def table(heads, rows, definitions=MappingProxyType({})):
    """Texts as a table; those that have a definition, with it on hover."""
    head = "".join(f"<th>{term(h, definitions.get(h))}</th>" for h in heads)
    body = "".join("<tr>" + "".join(f"<td>{term(c, definitions.get(c))}</td>" for c in row) + "</tr>" for row in rows)
    return f"{SCROLL}<table class=scores><tr>{head}</tr>{body}</table></div>"


def markdown_table(heads, rows):
    lines = [f"| {' | '.join(map(str, cells))} |" for cells in (heads, *rows)]
    return "\n".join([lines[0], "|---" * len(heads) + "|", *lines[1:]])


def delta_curve(trials, chosen, width=720, height=240, left=66, right=20, top=12, bottom=44):
    """Efficacy, specificity and coherence by the strength that was tried, as lines; the strength that was taken is marked.

    trials: as in report.json, `delta_trials`.
    """

    x, y = _scales(len(trials), width, height, left, right, top, bottom)
    parts = [
        f"<svg viewBox='0 0 {width} {height}' role=img aria-label='What each strength erases and what it spares'>",
        _ticks(width, left, right, y),
    ]
    for number, trial in enumerate(trials):
        here = trial["delta"] == chosen
        name = f"{trial['delta']:g}" + (" (taken)" if here else "")
        weight = "bold" if here else "normal"
        parts.append(
            f"<text x={x(number):.1f} y={height - 24} font-size=12 font-weight={weight} text-anchor=middle fill='currentColor'>{name}</text>"
        )
        if here:
            parts.append(
                f"<line x1={x(number):.1f} x2={x(number):.1f} y1={top} y2={height - bottom} stroke='currentColor' opacity='.5'></line>"
            )
    legend = []
    for key, line_color, dashes in (
        ("efficacy", COLORS["ember+rmu"], ""),
        ("specificity", COLORS["control"], "7 4"),
        ("coherence", COLORS["rmu"], "2 4"),
    ):
        line = " ".join(f"{x(n):.1f},{y(t[key]):.1f}" for n, t in enumerate(trials) if t[key] is not None)
        look = f"stroke='{line_color}' stroke-width='2.5' stroke-dasharray='{dashes}'"
        parts.append(f"<polyline points='{line}' fill='none' {look}></polyline>")
        legend.append(_sample(look, term(key, DEFINITIONS[key])))
    parts.append(
        f"<text x={(left + width) / 2} y={height - 6} font-size=12 text-anchor=middle fill='currentColor'>strength of the edit</text></svg>"
    )
    return "".join(parts) + "<p class=legend>" + " &nbsp; ".join(legend) + "</p>"


def embedding_map(points, before, after, width=340, height=300):
    """Where words lie in the word table, before and after the edit, side by side.

    points: dicts with `token` and `kind` ("edited", "concept" or "neutral"); before, after: (n, 2) places in [0, 1].
    """
    looks = {"neutral": ("#6b7280", 2.2, 0.45), "concept": (COLORS["ember"], 3, 0.8), "edited": (COLORS["rmu"], 3.4, 0.9)}
    order = sorted(range(len(points)), key=lambda n: list(looks).index(points[n]["kind"]))
    parts = []
    for places, title in ((before, "before"), (after, "after")):
        dots = []
        for n in order:
            color, radius, opacity = looks[points[n]["kind"]]
            x, y = 8 + (width - 16) * places[n][0], 8 + (height - 16) * (1 - places[n][1])
            dots.append(
                f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{radius}' fill='{color}' fill-opacity='{opacity}'><title>{escape(points[n]['token'])}</title></circle>"
            )
        parts.append(
            f"<figure><figcaption>{title}</figcaption><svg viewBox='0 0 {width} {height}' role=img aria-label='Map of the word table {title}'>"
            f"{''.join(dots)}</svg></figure>"
        )
    names = {"edited": "words that are changed", "concept": "other words seen only with the concept", "neutral": "everyday words"}
    legend = " &nbsp; ".join(
        f"<span style='color:{looks[k][0]}'>&#9679;</span> {n}" for k, n in names.items() if any(p["kind"] == k for p in points)
    )
    return f"<div class=maps>{''.join(parts)}</div><p class=legend>{legend}</p>"


CUT_OFF = " ... (cut off)"


def conversation(turns, columns):
    """Questions and every model's answer to each, row by row, the latest first.

    turns: dicts with `question`, `reference` (or None), `taught` (whether an attacker may train on it) and `answers` by column key: text, and
    `right` (None where nothing is known, or the answer has no end).
    columns: (key, heading, remark, color) each.
    """
    if not turns:
        return "<p class=note>Nothing has been asked yet.</p>"
    rows = []
    for turn in reversed(turns):
        reference = f"Right answer: {escape(turn['reference'])}" if turn["reference"] else ""
        if turn.get("taught") and any(" after " in key for key in turn["answers"]):
            reference += ". This fact is among those that an attacker retrains on."
        cells = []
        for key, heading, remark, line in columns:
            answer = turn["answers"].get(key)
            if answer is None:
                continue
            mark = {
                True: "<span class=right>&#10003; holds the right answer</span>",
                False: "<span class=wrong>&#10007; not right</span>",
                None: "<span class=wrong>&#10007; no end, so no answer</span>" if reference and answer["text"].endswith(CUT_OFF) else "",
            }[answer["right"]]
            text = escape(answer["text"]) or "<i>...</i>"
            cells.append(
                f"<div class=answer style='border-top-color:{line}'><span class=who><b>{escape(heading)}</b><small>{escape(remark)}</small></span>"
                f"<p>{text}</p>{mark}</div>"
            )
        rows.append(
            f"<section><h2>{escape(turn['question'])} <span class=reference>{reference}</span></h2><div class=answers>{''.join(cells)}</div></section>"
        )
    return f"<div class=talk role=log aria-label='Questions and answers'>{''.join(rows)}</div>"


def before_after(rows):
    """What each variant knew after erasing (the bar's filled part), what came back under attack (the striped part), and what else is left (the thin line).

    rows: (name, share after erasing, share after the strongest attack or None, share of everything else that is left or None) each.
    """
    lines = []
    for name, erased, attacked, left in rows:
        more = max(0.0, (attacked or 0.0) - erased)
        words = tenths(erased) if attacked is None else f"{round(10 * erased)} &#8594; {tenths(attacked)}"
        lines.append(
            f"<div class=bar><span>{named(name)}</span><span><span class=track><span class=fill style='width:{erased:.1%};background:{color(name)}'></span>"
            f"<span class='fill back' style='width:{more:.1%};--c:{color(name)}'></span></span>"
            f"{'' if left is None else f'<span class=left style=width:{left:.1%}></span>'}</span><b>{words}</b></div>"
        )
    return "".join(lines)


def tenths(share):
    """A share as people say it."""
    return f"{round(10 * share)} of 10"


def _scales(points, width, height, left, right, top, bottom):
    """Where the n-th of so many points stands across a picture, and a share from 0 to 1 up and down: two functions."""

    def x(number):
        return left + (width - left - right) * number / max(1, points - 1)

    def y(share):
        return top + (height - top - bottom) * (1 - share)

    return x, y


def _ticks(width, left, right, y):
    lines = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        lines.append(f"<line x1={left} x2={width - right} y1={y(tick):.1f} y2={y(tick):.1f} stroke='currentColor' opacity='.15'></line>")
        lines.append(f"<text x={left - 6} y={y(tick) + 4:.1f} font-size=12 text-anchor=end fill='currentColor'>{tick:.0%}</text>")
    return "".join(lines)
