"""Missingness as published work sets it up, under a name: ``random-0.7-keep1``, ``map-0.7-both``, ``mmin6``.

Each says where it comes from and what is odd about it. All of them make holes that do not depend on the data.

    >>> published("random-0.7-keep1")
    >>> SETTINGS["mmin6"].quirk
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from kintsugi.core.errors import ConfigError
from kintsugi.imperfect.distortion import number
from kintsugi.imperfect.mask import Asked, Mask
from kintsugi.imperfect.mechanism import Mechanism
from kintsugi.imperfect.mechanisms.drawn import Imml, KeepOne, MapMissing, RandomSubset
from kintsugi.imperfect.mechanisms.slots import Smil
from kintsugi.imperfect.mechanisms.steps import Steps
from kintsugi.imperfect.spec import share

if TYPE_CHECKING:
    from kintsugi.core.data import Data

_RATE = r"(?P<rate>\d*\.?\d+)"


@dataclass(frozen=True)
class Setting:
    """A published way to make holes.

    form: its name, with what may vary in capitals; pattern: what such names match; make: from the match.
    title: what it does; source: where it comes from; quirk: what one should know before quoting its numbers.
    uses: registered mechanisms that it asks by name; version: raised whenever its holes change.
    """

    form: str
    title: str
    source: str
    quirk: str
    pattern: str
    make: Callable[[Mapping[str, str | None]], Mechanism]
    uses: tuple[str, ...] = ()
    version: int = 1


@dataclass(frozen=True)
class Published(Mechanism):
    """A mechanism under the name that published work knows it by; ``setting`` says where it comes from."""

    name: str
    inner: Mechanism
    form: str

    @property
    def setting(self) -> Setting:
        return SETTINGS[self.form]

    @property
    def source(self) -> str:
        return self.setting.source

    @property
    def quirk(self) -> str:
        return self.setting.quirk

    def keep(self, data: Data, seed: int) -> Tensor:
        return self.inner.keep(data, seed)

    def asked(self, data: Data) -> Asked | None:
        return self.inner.asked(data)

    def plan(self, data: Data, seed: int) -> Mask:
        return replace(self.inner.plan(data, seed), mechanism=self.name)

    def __str__(self) -> str:
        return self.name


def published(name: str) -> Published | None:
    """The setting of this name, or None where it is the name of none. It is called by one spelling of its rate.

    Raises:
        ConfigError: a rate that is no share.
    """
    text = name.strip()
    for form, setting in SETTINGS.items():
        match = re.fullmatch(setting.pattern, text)
        if match is not None:
            inner = setting.make(match.groupdict())
            return Published(inner.name if isinstance(inner, Imml) else _spelt(match), inner, form)
    return None


def _spelt(match: re.Match[str]) -> str:
    """The name with its rate in one spelling: ``smil-0.50-m1`` as ``smil-0.5-m1``."""
    if "rate" not in match.re.groupindex:
        return match.string
    start, end = match.span("rate")
    return match.string[:start] + number(float(match["rate"])) + match.string[end:]


def _rate(found: Mapping[str, str | None]) -> float:
    value = float(found["rate"] or "")
    if not 0 <= value <= 1:
        raise ConfigError(f"a rate must be a share between 0 and 1, not {value:g}")
    return share("the rate", value)


def _smil(found: Mapping[str, str | None]) -> Mechanism:
    name = found["name"]
    return _SmilByKind(_rate(found)) if name is None else Smil(_rate(found), name)


@dataclass(frozen=True)
class _SmilByKind(Mechanism):
    """SMIL's setting for the modality that it was published for: the sound."""

    eta: float

    def _found(self, data: Data) -> Smil:
        names = [m.name for m in data.schema.modalities if m.kind == "audio"]
        if len(names) != 1:
            raise ConfigError(
                f"smil-{self.eta:g} is about the one modality of sound, and {data.name} has {len(names)}; "
                f"name the modality: smil-{self.eta:g}-NAME"
            )
        return Smil(self.eta, names[0])

    def keep(self, data: Data, seed: int) -> Tensor:
        return self._found(data).keep(data, seed)

    def asked(self, data: Data) -> dict[str, float]:
        return self._found(data).asked(data)

    def __str__(self) -> str:
        return f"smil-{self.eta:g}"


_GCNET = (
    "CPM-Net (Zhang et al., NeurIPS 2019), taken over by GCNet (Lian et al., TPAMI 2023), IMDer, LNLN and others: "
    "`random_mask` of their code"
)
_GCNET_QUIRK = (
    "One modality of each row is chosen to stay, the others are lost independently. A rate above 1 - 1/M gives 1 - 1/M: "
    "with three modalities 0.7 is 0.667 (each row has exactly one), with two it is 0.5. The released code redraws until the "
    "rate is within 0.005, so that .1, .3, .5, .6 came out as .103, .302, .496, .605; here it is exact to the nearest slot."
)
_IMML = "iMML (Lopez et al., 2025), class Amputer, whose rate is the share of rows that become incomplete"

SETTINGS: Mapping[str, Setting] = {
    setting.form: setting
    for setting in (
        Setting(
            "mmin6",
            "each row gets one of the six incomplete patterns of three modalities at random",
            "MMIN (Zhao, Li and Jin, ACL 2021), training; testing repeats every row under each of the six (protocol mmin6)",
            "The complete pattern is never drawn, so half of the slots go. The released code draws each row on its own; here "
            "each pattern comes equally often, to the nearest row. Its method sees the hidden inputs in its losses.",
            r"mmin6",
            lambda found: RandomSubset("mmin6", 3, complete=False),
        ),
        Setting(
            "random-RATE-keep1",
            "a share of the slots, each row keeps at least one",
            _GCNET,
            _GCNET_QUIRK,
            rf"random-{_RATE}-keep1",
            lambda found: KeepOne(_rate(found)),
        ),
        Setting(
            "gcnet-random-RATE",
            "the same as random-RATE-keep1, for one rate of the protocol gcnet-random",
            _GCNET,
            _GCNET_QUIRK,
            rf"gcnet-random-{_RATE}",
            lambda found: KeepOne(_rate(found)),
        ),
        Setting(
            "map-ETA-both|text|image",
            "a share of the rows lacks the text, the image, or half of them each",
            "missing-aware prompts (Lee et al., CVPR 2023); default 0.7, both",
            "The rate counts rows: with `both`, the rate of slots is half of it, and no row lacks both. The released code draws "
            "the table once from the global random state and caches it under a name without the seed, so two groups have "
            "two test sets; here it belongs to the seed. Its fill (an image of ones, an empty text) is not used: "
            "the mask says what is missing.",
            rf"map-{_RATE}-(?P<what>both|text|image)",
            lambda found: MapMissing(_rate(found), str(found["what"])),
        ),
        Setting(
            "brats15",
            "each row gets one of the 15 non-empty subsets of four modalities at random",
            "BraTS with missing sequences: HeMIS (Havaei et al. 2016) to mmFormer (Zhang et al. 2022), training of a "
            "non-dedicated model; testing goes through all 15 (protocol brats15)",
            "The complete row is one of the 15. Here each subset comes equally often, to the nearest row.",
            r"brats15",
            lambda found: RandomSubset("brats15", 4, complete=True),
        ),
        Setting(
            "tfrnet-token-RATE",
            "a share of the tokens or frames of each modality, inside the valid length, drawn once for the data set",
            "TFR-Net (Yuan et al., ACM MM 2021), MMSA data loader `generate_m`",
            "At rate 1 nothing is left to predict from. The released code never hides the first and last token of a BERT "
            "sentence; byte text has none, so all tokens count here. It fills tokens by BERT's unknown word and frames by "
            "zeros; here the mask says what is missing. The rate is exact, not an expectation.",
            rf"tfrnet-token-{_RATE}",
            lambda found: Steps(_rate(found)),
        ),
        Setting(
            "smil-ETA",
            "one modality (the sound, unless named: smil-ETA-NAME) is kept in a share of the rows of each class",
            "SMIL (Ma et al., AAAI 2021); AV-MNIST with 5, 10, 15, 20 %",
            "ETA counts what is kept. The published test rows number 450, so one row is 0.22 points.",
            rf"smil-{_RATE}(?:-(?P<name>.+))?",
            _smil,
            uses=("smil",),
        ),
        Setting(
            "imml-mem-RATE",
            "a share of the rows keeps exactly one modality",
            _IMML,
            "Mutually exclusive missing: the rate of slots is RATE (1 - 1/M), .2 for RATE .3 and three modalities.",
            rf"imml-mem-{_RATE}",
            lambda found: Imml("mem", _rate(found)),
        ),
        Setting(
            "imml-mcar-RATE",
            "a share of the rows gets a random pattern that is neither complete nor empty",
            _IMML,
            "The rate of slots is half of RATE, .15 for RATE .3. With more than three modalities patterns of one modality, or "
            "of all but one, come more often, since an empty or complete draw is mended by one flip.",
            rf"imml-mcar-{_RATE}",
            lambda found: Imml("mcar", _rate(found)),
        ),
        Setting(
            "imml-pm-RATE",
            "some modalities are always there; a share of the rows lacks some of the others",
            _IMML,
            "Partial missing: which, and how many, is drawn once for the data set, so two seeds differ in kind. For three "
            "modalities the rate of slots is RATE / 3.",
            rf"imml-pm-{_RATE}",
            lambda found: Imml("pm", _rate(found)),
        ),
        Setting(
            "imml-fixed-sets-RATE",
            "a share of the rows lacks one of M - 1 fixed sets of modalities, one set for each size",
            f"{_IMML}; there it is called mnar, and imml-mnar-RATE is read as this",
            "The released code calls this missing not at random, but it never looks at the data: measured correlations "
            "with the values are those of chance. For holes that depend on what they hold, use mnar().",
            rf"imml-(?:mnar|fixed-sets)-{_RATE}",
            lambda found: Imml("fixed-sets", _rate(found)),
        ),
    )
}
