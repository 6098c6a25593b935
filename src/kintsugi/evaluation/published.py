"""Protocols of published work, by name: MMIN's six patterns, GCNet's rates, ImageNet-C, MultiBench's noise.

They hold what is tested; how the training rows are treated is a mechanism of the same name
(:mod:`kintsugi.imperfect.published`). Any such mechanism is a protocol too: the clean rows, and the rows with these holes.
"""

from __future__ import annotations

from collections.abc import Sequence

from kintsugi.core.errors import ConfigError
from kintsugi.core.schema import Modality, Schema
from kintsugi.evaluation.protocols import CLEAN, PROTOCOLS, About, Condition, Protocol, _schema, fits, spread, subsets

# Hendrycks and Dietterich, ICLR 2019: 15 for the test, 4 held out for validation.
IMAGENET_C = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow", "frost",
    "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
IMAGENET_C_HOLDOUT = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
TFRNET_RATES = tuple(i / 10 for i in range(11))
GCNET_RATES = tuple(i / 10 for i in range(1, 8))
MULTIBENCH_LEVELS = tuple(i / 10 for i in range(1, 11))
# What MultiBench's level is a probability of (Liang et al., NeurIPS 2021 D&B, robustness tests), by the nearest operator.
# The severity is proposed here: the middle one, since the released transforms have one strength and vary in how often.
MULTIBENCH_SEVERITY = 3
MULTIBENCH = {
    "image": ("contrast", "saturate", "impulse_noise", "gaussian_noise"),
    "text": ("keyboard_typos",),
    "audio": ("white_noise",),
    "series": ("sensor_noise",),
}
MULTIBENCH_DROPS = ("series", "tabular", "vector")


def published_protocol(name: str, about: About) -> Protocol | None:
    """The protocol of a published setting such as ``map-0.7-both``, or None where the name is that of none.

    Protocols that are registered, such as ``mmin6``, come first.

    Raises:
        ConfigError: a rate that is no share, or modalities that it is not about.
    """
    from kintsugi.imperfect.published import published

    text = name.strip()
    if text in PROTOCOLS:
        return None
    found = published(text)
    if found is None:
        return None
    if found.form == "smil-ETA":
        return _smil(text, about)
    return Protocol(text, (CLEAN, Condition(text, f"rate/{found.form}", missing=text)))


def _smil(name: str, about: About) -> Protocol:
    """SMIL trains on a severely missing modality and tests without it."""
    schema = _schema(about)
    gone = name.split("-", 2)[2:] or [m.name for m in schema.modalities if m.kind == "audio"]
    if len(gone) != 1:
        raise ConfigError(f"{name} is about the one modality of sound; name the modality: {name}-NAME")
    schema.column(gone[0])
    keep = tuple(n for n in schema.names if n != gone[0])
    return Protocol(name, (CLEAN, Condition(" + ".join(keep), "subset", keep=keep)))


def _exactly(name: str, about: About, count: int) -> Schema:
    schema = _schema(about)
    if len(schema) != count:
        raise ConfigError(
            f"protocol {name!r} is about {count} modalities, and here are {len(schema)}; 'subsets' takes any number"
        )
    return schema


@PROTOCOLS.register("mmin6")
def mmin6(about: About) -> Protocol:
    """Each of the six incomplete patterns of three modalities, on all rows (MMIN, Zhao, Li and Jin, ACL 2021).

    The complete rows are not among them, as published; ``gcnet-fixed`` has them too.
    """
    _exactly("mmin6", about, 3)
    return Protocol("mmin6", subsets(about).conditions[1:])


@PROTOCOLS.register("gcnet-fixed")
def gcnet_fixed(about: About) -> Protocol:
    """The complete rows and each of the six incomplete patterns (GCNet, Lian et al., TPAMI 2023, and its successors)."""
    _exactly("gcnet-fixed", about, 3)
    return Protocol("gcnet-fixed", subsets(about).conditions)


@PROTOCOLS.register("gcnet-random")
def gcnet_random(about: About) -> Protocol:
    """Random slots at rates 0, 0.1, … 0.7, one kept in each row (GCNet, Lian et al., TPAMI 2023, and its successors).

    With three modalities, the last rate is 0.667: every row has exactly one. With two, 0.5 and above are the same.
    """
    return Protocol("gcnet-random", (CLEAN, *(_rate("gcnet-random-{:g}", "rate/gcnet-random", r) for r in GCNET_RATES)))


@PROTOCOLS.register("brats15")
def brats15(about: About) -> Protocol:
    """All 15 non-empty subsets of four modalities (BraTS with missing sequences; HeMIS, Havaei et al. 2016, and later)."""
    _exactly("brats15", about, 4)
    return Protocol("brats15", subsets(about).conditions)


@PROTOCOLS.register("tfrnet-token")
def tfrnet_token(about: About) -> Protocol:
    """Tokens and frames missing at rates 0, 0.1, … 1 (TFR-Net, Yuan et al., ACM MM 2021); at 1 nothing is left."""
    rates = [_rate("tfrnet-token-{:g}", "rate/tfrnet-token", rate) for rate in TFRNET_RATES[1:]]
    return Protocol("tfrnet-token", (CLEAN, *rates))


def _rate(form: str, group: str, rate: float) -> Condition:
    name = form.format(rate)
    return Condition(name, group, missing=name, x=rate)


@PROTOCOLS.register("imagenet-c")
def imagenet_c(about: About) -> Protocol:
    """The 15 test corruptions of ImageNet-C at 5 severities, on each image (Hendrycks and Dietterich, ICLR 2019).

    An operator that cannot be applied to an image, such as one on colour to a grey one, is left out.

    Raises:
        ConfigError: no modality is an image, or an operator is not registered.
    """
    return _imagenet_c("imagenet-c", about, IMAGENET_C)


@PROTOCOLS.register("imagenet-c-holdout")
def imagenet_c_holdout(about: About) -> Protocol:
    """The 4 corruptions of ImageNet-C that are held out for validation, at 5 severities, on each image.

    ``saturate`` is left out where an image is grey.

    Raises:
        ConfigError: no modality is an image, or an operator is not registered.
    """
    return _imagenet_c("imagenet-c-holdout", about, IMAGENET_C_HOLDOUT)


def _imagenet_c(name: str, about: About, operators: Sequence[str]) -> Protocol:
    schema = _schema(about)
    if not any(m.kind == "image" for m in schema.modalities):
        raise ConfigError(f"protocol {name!r} corrupts images, and none of {', '.join(schema.names)} is one")
    return Protocol(name, (CLEAN, *spread(schema, {"image": operators}, (1, 2, 3, 4, 5))))


@PROTOCOLS.register("multibench-noise")
def multibench_noise(about: About) -> Protocol:
    """Noise levels 0, 0.1, … 1, one modality at a time and all together (MultiBench, Liang et al., NeurIPS 2021 D&B).

    As intended, not as released: there, clips of sound that the noise spares become silence, and the number of levels differs
    between data sets. A level p is a probability: of each image operator for a row (as there), of noise for a row of text,
    sound or series (there, of a word; here operators work on rows), and of each step or cell to be lost in series, tables
    and vectors. Operators that this library has stand for those of MultiBench, at severity 3.

    Raises:
        ConfigError: no modality of a kind that it has noise for, or an operator is not registered.
    """
    schema = _schema(about)
    noisy = [m for m in schema.modalities if m.kind in MULTIBENCH or m.kind in MULTIBENCH_DROPS]
    if not noisy:
        raise ConfigError(f"protocol 'multibench-noise' has no noise for any of {', '.join(schema.names)}")
    tracks: list[tuple[str, Sequence[Modality]]] = [(m.name, [m]) for m in noisy]
    tracks += [("all", noisy)] if len(noisy) > 1 else []
    conditions = [_noise(track, which, level) for track, which in tracks for level in MULTIBENCH_LEVELS]
    return Protocol("multibench-noise", (CLEAN, *conditions))


def _noise(track: str, modalities: Sequence[Modality], level: float) -> Condition:
    from kintsugi.imperfect import OPERATORS
    from kintsugi.imperfect.spec import word

    operators = []
    for modality in modalities:
        for operator in MULTIBENCH.get(modality.kind, ()):
            if operator not in OPERATORS:
                raise ConfigError(
                    f"multibench-noise needs the corruption {operator!r}, and no such operator is registered"
                )
            if not fits(OPERATORS[operator], modality):
                continue
            one = f"{operator}({word(modality.name)}, {MULTIBENCH_SEVERITY})"
            operators.append(f"sometimes({one}, share={level:g})")
    drops = [word(m.name) for m in modalities if m.kind in MULTIBENCH_DROPS]
    missing = f"steps({level:g}, {'+'.join(drops)})" if drops else None
    group = f"corruption/multibench-noise({track})"
    return Condition(
        f"multibench-noise({track}, {level:g})", group, missing=missing, corruptions=tuple(operators), x=level
    )
