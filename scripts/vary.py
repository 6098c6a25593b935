"""Other arguments of a method beside its usual ones, in the world of its premise, on seeds that no page uses.

python scripts/vary.py if_mmin w_cmd=1 "w_cmd=0.01 blocks=2"        # seeds 100 to 104
python scripts/vary.py misa --seeds 3 --updates 3000 --strength 0.5
python scripts/vary.py vmloc --lr 0.0005
"""

from __future__ import annotations

import argparse
import ast
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from kintsugi.bench.pages.figures import mean_of
from kintsugi.bench.pages.job import Judged
from kintsugi.bench.pages.plan import HOSTS, budget, places
from kintsugi.bench.pages.work import perform
from kintsugi.core.catalogue import METHODS
from kintsugi.core.errors import UnknownName
from kintsugi.core.methods import judged_ablations

FIRST = 100  # pages begin at 10 and end below


def parsed(text: str) -> dict[str, Any]:
    """``"a=1 b=text"`` -> arguments."""
    found: dict[str, Any] = {}
    for pair in text.split():
        name, _, value = pair.partition("=")
        try:
            found[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            found[name] = value
    return found


def value(job: Judged) -> tuple[float, float]:
    """Score of the test rows, and of the validation rows."""
    facts = perform(job).facts
    return facts["value"], facts["validation"]


def shown(values: list[float]) -> str:
    """In percent with half of the 95 % interval over seeds."""
    mean = mean_of(values)
    return f"{100 * mean.value:6.1f} ± {100 * mean.half:4.1f}"


def main() -> None:
    """Read the command line, train, print a line as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method")
    parser.add_argument("variants", nargs="*", help='such as w_cmd=0.01, or "w_cmd=1 blocks=2"')
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--lr", type=float, default=None)
    parser.add_argument("--alone", action="store_true", help="leave the ablations out")
    parser.add_argument("--world", default=None, help="another premise than the first of the card")
    asked = parser.parse_args()
    try:
        METHODS.card(asked.method)
    except UnknownName as error:
        parser.error(str(error))
    if wrong := [pair for variant in asked.variants for pair in variant.split() if "=" not in pair]:
        parser.error(f"{wrong[0]!r} is no argument; write name=value")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    size, place = budget(), places(asked.method)[0]
    if asked.world:
        place = replace(place, options=(("premise", asked.world), *place.options[1:]))
    trainer = size.trainer(asked.updates) | ({} if asked.lr is None else {"lr": asked.lr})
    seeds = range(FIRST, FIRST + asked.seeds)

    def job(method: str, seed: int, params: Mapping[str, Any], without: str | None = None) -> Judged:
        source = place.source(asked.strength, seed)
        mine = dict(place.params) if method == asked.method else {}
        params = mine | dict(params)
        return Judged(source, method, seed, place.training, place.protocol, params=params, trainer=trainer, resamples=20,
                      without=without)  # fmt: skip

    both = [[value(job(host, seed, {})) for host in HOSTS] for seed in seeds]
    host = [max(pair, key=lambda scores: scores[1])[0] for pair in both]
    print(
        f"{place.title}, strength {asked.strength:g}, {asked.updates} updates, seeds {seeds.start} to {seeds.stop - 1}"
    )
    print(f"{'plain host':44} {shown(host)}", flush=True)
    for variant in ["", *asked.variants]:
        params = parsed(variant)
        mine = [value(job(asked.method, seed, params))[0] for seed in seeds]
        ahead = shown([a - b for a, b in zip(mine, host, strict=True)])
        line = f"{asked.method + ' ' + variant:44} {shown(mine)}; against the host {ahead}"
        for part in () if asked.alone else judged_ablations(METHODS[asked.method]):
            other = [value(job(asked.method, seed, params, part))[0] for seed in seeds]
            gain = shown([a - b for a, b in zip(mine, other, strict=True)])
            line += f"; without {part or 'its mechanism'} {gain}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
