"""The measured part of a method's page, and the page on when methods help, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from kintsugi.bench.pages.figures import Cell, Judgement, Mean, mean_of
from kintsugi.bench.pages.job import PLAIN
from kintsugi.bench.pages.plan import BESIDE, Place

TITLES = {
    "mean_fusion": "Plain host, natural views", "random_subsets": "Plain host, random subsets", "late_fusion": "Late fusion",
    PLAIN: "Plain baseline",
}  # fmt: skip
SAID = {"helps": "helps", "does not differ": "does not differ", "harms": "harms", "not measured": "was not measured"}


def percent(mean: Mean) -> str:
    """A value."""
    if not mean.n:
        return "–"
    return f"{100 * mean.value:.1f}" + (f" ± {100 * mean.half:.1f}" if math.isfinite(mean.half) else "")


def points(mean: Mean) -> str:
    """A difference; bold where its interval leaves out 0."""
    if not mean.n:
        return "–"
    text = f"{100 * mean.value:+.1f}" + (f" ± {100 * mean.half:.1f}" if math.isfinite(mean.half) else "")
    return f"**{text}**" if mean.verdict in ("helps", "harms") else text


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, numbers to the right."""
    aligned = ["---:" if place else ":---" for place in range(len(head))]
    return ["| " + " | ".join(row) + " |" for row in [head, aligned, *rows]] + [""]


# a method ---------------------------------------------------------------------------------------------------------------
def measured(found: Judgement, note: str = "") -> str:
    """The part of a method's page that its trainings fill.

    Args:
        found: what they came to. note: why a null is one, and which variant was tried.
    """
    own, other, real = found.places
    lines = [
        f"By `kintsugi bench pages --methods {found.key}`: {found.updates:,} updates a training, batches of 64, the round "
        "chosen by validation rows. A seed changes the law, the rows and the weights of a world; of a real set the weights and "
        "the holes or the damage, of `diabetes` the division of rows too, while `handwritten` keeps its own. Values are "
        f"{found.metric} in percent, ± half of a 95 % interval (Student's t over seeds); differences are paired over seeds, bold "
        "where the interval leaves out 0, which one in twenty does by chance.",
        "",
    ]
    if found.lacking:
        lines += [f"{found.lacking:,} trainings of this page have not been run.", ""]
    lines += _verdicts(found)
    if note:
        lines += [note, ""]
    lines += [f"**The world of its premise: {_named(own)}**", "", *_values(found, own), *_differences(found, own)]
    lines += _parts(found)
    lines += _settled(found)
    lines += [f"**Elsewhere: the world {_named(other)}, and {_named(real)}**", "", *_elsewhere(found, (other, real))]
    return "\n".join(lines).rstrip() + "\n"


def _named(place: Place) -> str:
    more = [f"{name} {value}" for name, value in place.options if name != "premise"]
    more += [f"the method with `{name}={value!r}`" for name, value in place.params]
    if place.role == "real":
        more += [f"training {place.training}", f"test {place.protocol}"]
    return f"`{place.title}`" + (f" ({', '.join(more)})" if more else "")


def _without(part: str) -> str:
    return f"without {part}" if part else "without its mechanism"


def _verdicts(found: Judgement) -> list[str]:
    sentences = []
    for part in found.ablations:
        at_one, grows = found.against("own", 1.0, part), found.growth(part)
        growth = {
            "helps": ", and the difference grows with the premise",
            "harms": ", and the difference shrinks with the premise",
        }.get(grows.verdict, ", and the difference does not change with the premise beyond noise")
        what = part or "its mechanism"
        how = f"{growth} ({points(grows)})" if at_one.n and grows.n else ""
        sentences.append(
            f"Where its premise holds, {what} *{SAID[at_one.verdict]}*: {points(at_one)} points against the same training "
            f"without it{how}."
        )
    host = found.against_host("own", 1.0)
    sentences.append(f"Against the plain host on all rows the method *{SAID[host.verdict]}*: {points(host)} points.")
    return [" ".join(sentences), ""]


def _sides(found: Judgement) -> list[tuple[str, str, str | None]]:
    mine: list[tuple[str, str, str | None]] = [(f"`{found.key}`", found.key, None)]
    mine += [(f"… {_without(part)}", found.key, part) for part in found.ablations]
    return mine + [(TITLES[name], name, None) for name in (*BESIDE, PLAIN) if name != found.key]


def _values(found: Judgement, place: Place) -> list[str]:
    rows = []
    longer = found.longer is not None and ("own", 1.0, found.longer) in found.cells
    for title, name, without in _sides(found):
        cells = [found.cell("own", strength, name, without) for strength in place.strengths]
        row = [title, *(percent(mean_of(cell.value.values())) if cell else "–" for cell in cells)]
        if longer:
            again = found.cell("own", 1.0, name, without, found.longer)
            row.append(percent(mean_of(again.value.values())) if again else "–")
        rows.append([*row, *_costs(cells[-1])])
    best = [next(iter(found.cells.get(("own", s, found.updates), {}).values()), None) for s in place.strengths]
    optimum = ["Optimum", *(percent(mean_of(c.optimum.values())) if c else "–" for c in best)]
    rows.append(optimum + [""] * (2 + longer))
    head = ["", *(f"strength {s:g}" for s in place.strengths)]
    if longer:
        head.append(f"1, {found.longer:,} updates")
    return table([*head, "CPU seconds", "parameters"], rows)


def _costs(cell: Cell | None) -> list[str]:
    if cell is None:
        return ["–", "–"]
    return [f"{cell.seconds:.1f}", f"{cell.parameters:,.0f}" if cell.parameters else "–"]


def _differences(found: Judgement, place: Place) -> list[str]:
    rows = [
        [f"{_without(part)}", *(points(found.against("own", strength, part)) for strength in place.strengths)]
        for part in found.ablations
    ]
    rows.append(["the plain host", *(points(found.against_host("own", strength)) for strength in place.strengths)])
    for name in ("late_fusion", PLAIN):
        if name != found.key:
            rows.append([TITLES[name].lower(), *(points(found.against_other("own", s, name)) for s in place.strengths)])
    return table([f"`{found.key}` minus", *(f"strength {s:g}" for s in place.strengths)], rows)


def _parts(found: Judgement) -> list[str]:
    whole = found.cell("own", 1.0, found.key)
    names = [name for name in (whole.parts if whole else ()) if not name.startswith("optimum ")]
    if not names:
        return []
    rows = []
    for title, name, without in _sides(found):
        cell = found.cell("own", 1.0, name, without)
        rows.append([title, *(percent(mean_of(cell.parts.get(part, {}).values())) if cell else "–" for part in names)])
    assert whole is not None
    best = [percent(mean_of(whole.parts.get(f"optimum {part}", {}).values())) for part in names]
    rows.append(["Optimum", *best])
    for part in found.ablations:
        rows.append([f"difference {_without(part)}", *(points(found.against("own", 1.0, part, p)) for p in names)])
    rows.append(["difference to the plain host", *(points(found.against_host("own", 1.0, p)) for p in names)])
    return ["Test rows apart, at strength 1:", "", *table(["", *names], rows)]


def _settled(found: Judgement) -> list[str]:
    moved = found.moves()
    if not moved:
        return []
    said = ", ".join(f"{side} {points(mean)}" for side, mean in moved.items())
    verdict = (
        "settled: no side moves by more than a point"
        if found.settled
        else "not settled: a side moves by more than a point"
    )
    n = max(mean.n for mean in moved.values())
    again = [
        f"{points(found.against('own', 1.0, part, updates=found.longer))} {_without(part)}" for part in found.ablations
    ]
    again.append(f"{points(found.against_host('own', 1.0, updates=found.longer))} to the plain host")
    return [
        f"From {found.updates:,} to {found.longer:,} updates ({n} seeds): {said}; {verdict}. Differences at "
        f"{found.longer:,}: {', '.join(again)}.",
        "",
    ]


def _elsewhere(found: Judgement, there: Sequence[Place]) -> list[str]:
    rows = []
    for title, name, without in _sides(found):
        cells = [found.cell(place.role, 1.0, name, without) for place in there]
        rows.append([title, *(percent(mean_of(c.value.values())) if c else "–" for c in cells)])
    best = [next(iter(found.cells.get((place.role, 1.0, found.updates), {}).values()), None) for place in there]
    rows.append(["Optimum", *(percent(mean_of(c.optimum.values())) if c and c.optimum else "unknown" for c in best)])
    for part in found.ablations:
        rows.append([f"difference {_without(part)}", *(points(found.against(p.role, 1.0, part)) for p in there)])
    rows.append(["difference to the plain host", *(points(found.against_host(p.role, 1.0)) for p in there)])
    return table(["", *(f"{place.title}" for place in there)], rows)


# all methods ------------------------------------------------------------------------------------------------------------
def when(judgements: Mapping[str, Judgement], names: Mapping[str, str], advice: str = "") -> str:
    """The page that compares all methods where their premises hold.

    Args:
        judgements: by key. names: key -> name of the method. advice: what follows, in words.
    """
    done = {key: found for key, found in judgements.items() if found.rests and found.verdict != "not measured"}
    beat = [key for key, found in done.items() if found.helpful]
    both = [key for key in beat if done[key].verdict_host == "helps"]
    plain = [names[key] for key, found in judgements.items() if not found.rests]
    lines = [
        "# When does it help?",
        "",
        "Each method where its premise holds, at full strength: against the same training without its mechanism, against the "
        "plain host on all rows (natural views or random subsets, as validation rows prefer), against the plain scikit-learn "
        "baseline that validation rows choose. Values are accuracy in percent, or R² where that is said. Points with 95 % "
        "intervals, paired over seeds; bold: the interval leaves out 0, which one in twenty does by chance. "
        "A mechanism *helps* where the method beats both its ablation and the plain host; of several mechanisms each has an "
        "ablation of its own. Made by `kintsugi bench pages`; each method's own page has all strengths, another world and a real "
        "set.",
        "",
        f"{len(both)} of {len(done)} methods help, with one mechanism of theirs at least; {len(beat)} of {len(done)} beat an "
        "ablation of theirs."
        + (f" Plain hosts rest on no premise and do not count: {', '.join(plain)}." if plain else ""),
        "",
    ]
    if advice:
        lines += [advice.strip(), ""]
    worlds = dict.fromkeys(found.places[0].title for found in judgements.values())
    for world in worlds:
        here = {key: found for key, found in judgements.items() if found.places[0].title == world}
        lines += [f"## `{world}`", "", *_world(here, names)]
    return "\n".join(lines).rstrip() + "\n"


def said(found: Judgement) -> str:
    """Both verdicts in a few words."""
    if not found.rests:
        return "plain host"
    some = " and ".join(part or "its mechanism" for part in found.helpful)
    every = len(found.helpful) == len(found.ablations)
    if found.verdict_host == "helps" and some:
        return "helps" if every else f"helps by {some}"
    if some:
        return "beats its ablation" if every else f"beats that of {some}"
    return SAID[found.verdict]


def _world(here: Mapping[str, Judgement], names: Mapping[str, str]) -> list[str]:
    rows = []
    for key, found in here.items():
        mine = found.cell("own", 1.0, key)
        gains = [(part, points(found.against("own", 1.0, part))) for part in found.ablations]
        unit = " (R²)" if found.metric == "R²" else ""
        rows.append(
            [
                f"[{names[key]}](methods/{key}){unit}", percent(mean_of(mine.value.values())) if mine else "–",
                percent(mean_of(mine.optimum.values())) if mine else "–",
                "; ".join(f"{part} {gain}" if part else gain for part, gain in gains) if found.rests else "–",
                points(found.against_host("own", 1.0)), points(found.against_other("own", 1.0, PLAIN)),
                {True: "yes", False: "no", None: "–"}[found.settled], said(found),
            ]
        )  # fmt: skip
    head = [
        "Method",
        "value",
        "optimum",
        "to its ablation",
        "to the plain host",
        "to the plain baseline",
        "settled",
        "verdict",
    ]
    return table(head, rows)
