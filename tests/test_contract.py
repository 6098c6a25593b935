"""The promises of every registered method. Registering a class is enough to be put through all of them."""

from __future__ import annotations

import ast
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import kintsugi.testing
from kintsugi.core import (
    Answer,
    Batch,
    Claim,
    Claims,
    ConfigError,
    Features,
    Fixture,
    Fused,
    Model,
    Monitor,
    Pipeline,
    Prediction,
    Restorer,
    Schema,
    Splits,
    Step,
    ablation_of,
    claims_of,
)
from kintsugi.core.errors import UnknownName
from kintsugi.core.methods import COMPONENTS, METHODS
from kintsugi.evaluation import evaluate
from kintsugi.testing import CHECKS, check_method, promises_of_answers, trials
from kintsugi.testing.claim_figures import FIRM, Measured, measure_claims, record, record_file, recorded, rows_of
from kintsugi.testing.fresh_process import wrong_in_a_fresh_process
from kintsugi.testing.promises_of_answers import wrong_with
from kintsugi.testing.promises_of_arguments import candidates
from kintsugi.testing.shelf import SHELF, Shelf
from kintsugi.testing.style_tools import checkout
from kintsugi.testing.toys import mixed, toy
from kintsugi.training.trainer import Trainer

# (method, promise) -> reason: what is known not to hold. Strict: an entry that holds after all fails here.
KNOWN_EXCEPTIONS: dict[tuple[str, str], str] = {}
LEAVES = sorted({METHODS.card(key).leaf for key in METHODS})


@pytest.mark.parametrize("promise", CHECKS)  # the inner loop: what was trained for one method serves all its promises
@pytest.mark.parametrize("key", METHODS.names())
def test_promise(key: str, promise: str, request: pytest.FixtureRequest) -> None:
    if (key, promise) in KNOWN_EXCEPTIONS:
        request.applymarker(pytest.mark.xfail(reason=KNOWN_EXCEPTIONS[key, promise], strict=True))
    CHECKS[promise](METHODS[key])


def test_known_exceptions_name_what_exists() -> None:
    for key, promise in KNOWN_EXCEPTIONS:
        assert key in METHODS
        assert promise in CHECKS


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_method_survives_saving_and_loading_in_a_fresh_process(leaf: str, tmp_path: Path) -> None:
    """The same answers and parameters, and nothing heavy is imported to predict; one child process a leaf."""
    methods = [METHODS[key] for key in METHODS if METHODS.card(key).leaf == leaf]
    assert wrong_in_a_fresh_process(methods, tmp_path) == {}


# what breaks a promise ------------------------------------------------------------------------------------------------
Plain = METHODS["mean_fusion"]
ONE_TASK = replace(Plain.card, key="broken", tasks=("classification",))


class Undocumented(Plain):  # type: ignore[misc,valid-type]
    card = ONE_TASK


class Reads(Undocumented):
    """Takes what stands in absent slots for a sign."""

    def encode(self, batch: Batch, encoders: Any = None) -> Features:
        features = super().encode(batch, encoders)
        sign = batch.inputs[self.schema.names[0]].flatten(1).nan_to_num(7.0).mean(1)
        stream = features.streams[self.schema.names[1]]
        return features.replace({self.schema.names[1]: replace(stream, tokens=stream.tokens + sign[:, None, None])})


class Peeks(Undocumented):
    """Looks behind what a simulator hid: the source of the training rows still has it."""

    def __init__(self, schema: Schema, dim: int = 32) -> None:
        super().__init__(schema, dim)
        self.register_buffer("seen", torch.zeros(()))

    def settle(self, data: Splits) -> None:
        whole: Any = data.train
        table = whole.source.read(whole.index)
        self.seen.fill_(table.inputs["image"].double().nan_to_num().sum())


class ReadsHiddenLabels(Undocumented):
    """Learns from every label of the table, hidden or not."""

    def prepare(self, data: Splits, stage: Any) -> None:
        whole: Any = data.train
        self.__dict__["labels"] = whole.source.target

    def step(self, batch: Batch) -> Step:
        labels = self.__dict__["labels"][batch.index]
        return super().step(replace(batch, target=labels, target_present=None))


class NotFinite(Undocumented):
    """Divides by what is not there, where a row has one modality; the trainer would see it in smaller batches."""

    def head(self, fused: Fused, features: Features) -> Prediction:
        answer = super().head(fused, features)
        few = features.present.sum(1, keepdim=True) == 1
        return replace(
            answer, output=answer.output.masked_fill(few & (len(few) == promises_of_answers.MANY), torch.nan)
        )


class Answers(Undocumented):
    """Answers rows with nothing as if it knew them."""

    def enough(self, present: Tensor) -> Tensor:
        return torch.ones(len(present), dtype=torch.bool)


class Compares(Undocumented):
    """Looks at the other rows of the batch."""

    def fuse(self, features: Features) -> Fused:
        fused = super().fuse(features)
        return replace(fused, tokens=fused.tokens - fused.tokens.mean(0))


class Counts(Undocumented):
    """Remembers how often it was asked."""

    def __init__(self, schema: Schema, dim: int = 32) -> None:
        super().__init__(schema, dim)
        self.register_buffer("asked", torch.zeros(()))

    def head(self, fused: Fused, features: Features) -> Prediction:
        self.asked += 0 if self.training else 1
        return super().head(fused, features)


class Draws(Undocumented):
    """Draws in use, from the generator that everybody has."""

    def head(self, fused: Fused, features: Features) -> Prediction:
        answer = super().head(fused, features)
        return replace(
            answer, output=answer.output + 1e-3 * torch.rand_like(answer.output) * answer.used.any(1)[:, None]
        )


class Keeps(Undocumented):
    """Keeps a feature of every training row, and does not say so."""

    def settle(self, data: Splits) -> None:
        self.__dict__["bank"] = {"rows": [self.encode_rows(data.train).flat()]}


class Hoards(Undocumented):
    """Keeps the training rows themselves."""

    def settle(self, data: Splits) -> None:
        self.__dict__["rows"] = data.train


class Idle(Undocumented):
    """Has a layer that nothing asks."""

    def __init__(self, schema: Schema, dim: int = 32) -> None:
        super().__init__(schema, dim)
        self.spare = nn.Linear(2, 2)


class RareIdle(Idle):
    """Says that only few rows reach it."""

    rare = ("spare.*",)


class RareNothing(Undocumented):
    """Exempts what it does not have."""

    rare = ("nowhere.*",)


class Reachless(Undocumented):
    """Has a loss that reaches no parameter."""

    def step(self, batch: Batch) -> Step:
        return super().step(batch).plus(nothing=torch.zeros(()))


COUNT = itertools.count()


class Unseeded(Undocumented):
    """Begins elsewhere each time."""

    def __init__(self, schema: Schema, dim: int = 32) -> None:
        super().__init__(schema, dim)
        with torch.no_grad():
            self.task_head.linear.weight += 1e-3 * next(COUNT)


class Guesses(Undocumented):
    """Learns nothing from its inputs."""

    def fuse(self, features: Features) -> Fused:
        return Fused.vector(0 * super().fuse(features).pooled())


class GuessesNumbers(Guesses):
    """Learns nothing from its inputs where the target is a number."""

    card = replace(Plain.card, key="broken")

    def fuse(self, features: Features) -> Fused:
        return super().fuse(features) if self.task.link == "identity" else Plain.fuse(self, features)


class Deaf(Undocumented):
    """Has an argument that changes nothing."""

    def __init__(self, schema: Schema, dim: int = 32, volume: float = 1.0) -> None:
        super().__init__(schema, dim)


class Bare(Undocumented):
    """Has an argument that must be given."""

    def __init__(self, schema: Schema, volume: float, dim: int = 32) -> None:
        super().__init__(schema, dim)


class Rude(Undocumented):
    """Does not refuse in words what it cannot take."""

    def __init__(self, schema: Schema, dim: int = 32, heads: int = 4) -> None:
        super().__init__(schema, dim)
        if dim % heads:
            raise ValueError("dim must be divisible by heads")


class Mute(Undocumented):
    """Nobody can guess what its argument may be."""

    def __init__(self, schema: Schema, dim: int = 32, plan: Any = None) -> None:
        super().__init__(schema, dim)


class Probed(Undocumented):
    """Names what may be tried in place of a default that nobody could guess."""

    probes: ClassVar = {"plan": ("wide",), "cap": (2,)}

    def __init__(self, schema: Schema, dim: int = 32, plan: Any = None, cap: int = 1000) -> None:
        super().__init__(schema, 2 * dim if plan == "wide" else dim)
        self.cap = cap

    def fuse(self, features: Features) -> Fused:
        fused = super().fuse(features)
        return replace(fused, tokens=fused.tokens.clamp(max=float(self.cap) / 100))


class ProbesNothing(Undocumented):
    """Names values of an argument that it does not have."""

    probes: ClassVar = {"plan": ("wide",)}


class OfNumbersOnly(Plain):  # type: ignore[misc,valid-type]
    """Has an argument that counts in regression alone."""

    card = replace(Plain.card, key="broken", tasks=("classification", "regression"))

    def __init__(self, schema: Schema, dim: int = 32, factor: float = 1.0) -> None:
        super().__init__(schema, dim)
        self.factor = factor if schema.task.link == "identity" else 1.0

    def step(self, batch: Batch) -> Step:
        step = super().step(batch)
        return Step({"task": self.factor * step.losses["task"]}, step.prediction)


class BrokenOff(Undocumented):
    """Works, but what is left without its mechanism does not."""

    ablation = NotFinite


class Lacking(Model):
    """Has neither ablation nor claims."""

    card = ONE_TASK


def with_claims(generator: Any, *names: str) -> Any:
    """A method that states these claims, of which its card names some."""

    class Stating(Undocumented):
        """Says something of itself."""

        card = replace(ONE_TASK, claims=names)

    ablation_of(Stating)(type("Off", (Stating,), {"__doc__": "Off."}))
    claims_of(Stating)(generator)
    return Stating


def is_ablated(fixture: Any) -> bool:
    return bool(getattr(fixture, "_fixture", fixture).ablated)  # which no claim is told


def kept_by_the_ablation(fixture: Fixture) -> Claims:
    yield Claim("two", 2.0, at_least=1.0)


def failing(fixture: Fixture) -> Claims:
    yield Claim("two", 0.5, at_least=1.0)


def unknown(fixture: Fixture) -> Claims:
    yield Claim("three", 2.0, at_least=1.0)


def silent_on_the_ablation(fixture: Fixture) -> Claims:
    yield Claim("one", 1.0, at_least=1.0)
    if not is_ablated(fixture):
        yield Claim("two", 2.0, at_least=1.0)


def crashing_on_the_ablation(fixture: Fixture) -> Claims:
    yield Claim("two", 1 / (1 - is_ablated(fixture)), at_least=1.0)


def asserting_on_the_ablation(fixture: Fixture) -> Claims:
    if is_ablated(fixture):
        raise AssertionError
    yield Claim("two", 2.0, at_least=1.0)


def twice(fixture: Fixture) -> Claims:
    yield Claim("two", 2.0, at_least=1.0)
    yield Claim("two", 3.0, at_least=1.0)


def nothing(fixture: Fixture) -> Claims:
    yield from ()


def no_claim(fixture: Fixture) -> Iterator[Any]:
    yield ("two", 2.0)


@pytest.mark.parametrize(
    ("cls", "promise", "message"),
    [
        (Reads, "no_leak", "was trained on what is absent"),
        (Peeks, "hidden_is_gone", "model.seen was trained on what with_missing hid"),
        (ReadsHiddenLabels, "hidden_is_gone", r"model\..* was trained on what with_missing hid"),
        (Unseeded, "no_leak", r"two runs of one seed differ \(model\..*\), so that nobody can tell whether what is absent"),
        (Keeps, "bank_is_declared", r"model.bank.rows.0 has the shape \[72, 128\] after 72 training rows and .*reference=True"),
        (Hoards, "bank_is_declared", "model.rows holds on to the training rows; let it go, or let the card say"),
        (NotFinite, "every_subset", "with image present some answer is not finite"),
        (Answers, "every_subset", "a row with nothing does not get the prior"),
        (Compares, "alone_or_together", "an answer depends on the batch: it moves by up to"),
        (Counts, "use_is_undone", "answers change the model: model.asked is not what it was"),
        (Draws, "use_is_undone", "two answers to the same rows differ: by up to"),
        (Idle, "every_loss_trains", "trainable parameters without gradient: model.spare.weight, model.spare.bias"),
        (RareNothing, "every_loss_trains", "rare names parameters that there are not: 'nowhere.\\*' of RareNothing"),
        (Reachless, "every_loss_trains", "losses that reach no parameter: nothing of stage train"),
        (Unseeded, "seeded", r"model\..* differs between two runs of one seed"),
        (Guesses, "learns", r"it does not learn the toy: accuracy 0\.\d+; guessing has 0.25, and 0.55 is wanted"),
        (GuessesNumbers, "learns", r"for regression: it does not learn the toy: R² -?0\.\d+; guessing has 0, and 0.40 is"),
        (Deaf, "no_argument_ignored", r"argument volume is ignored: 0.5 or 3.1 in place of 1.0 changes no shape"),
        (Bare, "no_argument_ignored", "argument volume has no default"),
        (Rude, "no_argument_ignored", r"argument dim=33 is neither taken nor refused in words: ValueError in line"),
        (Mute, "no_argument_ignored", r"argument plan: nobody can guess .*; name some by probes = {'plan': \(…,\)} of Mute"),
        (ProbesNothing, "no_argument_ignored", "probes has values for 'plan', which is no argument"),
        (BrokenOff, "ablation_is_sound", "with the mechanism off: with image present some answer is not finite"),
        (Lacking, "claims_hold", r"it states no claim: write a generator of claims under @claims_of\(Lacking\)"),
        (Lacking, "ablation_is_sound", r"it has no ablation: write it under @ablation_of\(Lacking\)"),
        (with_claims(kept_by_the_ablation, "two"), "claims_hold", "the ablation keeps the claim two: 2 .*so it tests nothing"),
        (with_claims(failing, "two"), "claims_hold", r"claim fails: two: 0.5 \(at least 1\)"),
        (with_claims(unknown, "two"), "claims_hold", "the card names the claim 'two', and the method states 'three'"),
        (with_claims(silent_on_the_ablation, "two"), "claims_hold", "on the ablation nothing is said of 'two'"),
        (with_claims(crashing_on_the_ablation, "two"), "claims_hold", "on the ablation ends with ZeroDivisionError"),
        (with_claims(asserting_on_the_ablation, "two"), "claims_hold", r"ends with AssertionError in line \d+ of test_"),
        (with_claims(twice, "two"), "claims_hold", "two claims are called 'two'"),
        (with_claims(nothing, "two"), "claims_hold", "on the method no claim is stated"),
        (with_claims(no_claim, "two"), "claims_hold", r"on the method it yields \('two', 2.0\), which is no Claim"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)  # fmt: skip
def test_a_broken_promise_says_what_is_broken(cls: Any, promise: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        CHECKS[promise](cls)


@pytest.mark.parametrize(
    ("cls", "promise"),
    [
        (RareIdle, "every_loss_trains"), (Probed, "no_argument_ignored"), (OfNumbersOnly, "no_argument_ignored"),
        (Reads, "hidden_is_gone"), (Peeks, "no_leak"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)  # fmt: skip
def test_a_promise_blames_nobody_for_another_one(cls: Any, promise: str) -> None:
    CHECKS[promise](cls)


def test_values_to_try_are_near_the_default_or_of_the_written_type() -> None:
    class Many(Undocumented):
        """Has arguments of every sort."""

        probes: ClassVar = {"given": (7, 8)}

        def __init__(
            self, schema: Schema, count: int = 512, few: int = 1, share: float = 0.5, on: bool = False, mode: str = "auto",
            maybe: int | None = None, rate: float | None = None, each: list[float] | None = None, pair: tuple[int, int] = (1, 4),
            given: int = 3,
        ) -> None:  # fmt: skip
            super().__init__(schema)

    tried = {name: candidates(Many, name, default) for name, default in {
        "count": 512, "few": 1, "share": 0.5, "on": False, "mode": "auto", "maybe": None, "rate": None, "each": None,
        "pair": (1, 4), "given": 3,
    }.items()}  # fmt: skip
    assert tried == {
        "count": [513, 1024, 511, 256, 1, 2], "few": [2], "share": [0.25, 1.6], "on": [True], "mode": ["no such thing"],
        "maybe": [1, 2], "rate": [0.5, 2.0], "each": [[1.0, 0.5, 0.5, 0.5], [1.0, 0.5, 0.5], [1.0, 0.5], [1.0]],
        "pair": [(2, 8), (4, 1)], "given": [7, 8],
    }  # fmt: skip


# pipelines that adapt in use ------------------------------------------------------------------------------------------
class Follows(Monitor):
    """Moves a bias of its own against the entropy of each answer, by a step of momentum, with a little noise."""

    adapts = True

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(schema.task.outputs), requires_grad=False)
        self.velocity: Tensor | None = None

    def answer(self, batch: Batch, inner: Answer) -> Prediction:
        prediction = inner(batch)
        bias = self.bias.detach().clone().requires_grad_()
        p = (prediction.output.detach() + bias).softmax(1)
        entropy = -(p * p.clamp(min=1e-9).log()).sum()
        (slope,) = torch.autograd.grad(entropy, [bias])
        self.velocity = slope if self.velocity is None else 0.9 * self.velocity + slope
        with torch.no_grad():
            self.bias -= 0.1 * self.velocity * (1 + 0.1 * torch.rand((), generator=self.noise))
        answered = prediction.used.any(1)[:, None]
        return replace(prediction, output=prediction.output + torch.where(answered, self.bias.detach(), 0))

    def reset(self) -> None:
        self.velocity = None


class RemembersVelocity(Follows):
    """Forgets to let go of its momentum."""

    def reset(self) -> None:
        pass


class DrawsAnew(Follows):
    """Draws from the generator that everybody has."""

    @property
    def noise(self) -> torch.Generator:
        return torch.default_generator


class ReadsTheBatch(Follows):
    """Looks at how many rows were given together."""

    def answer(self, batch: Batch, inner: Answer) -> Prediction:
        prediction = super().answer(batch, inner)
        return replace(prediction, output=prediction.output * (1 + 1e-2 * len(SIZES) * SIZES[-1]))


SIZES = [0]


class SizedPipeline(Pipeline):
    """Tells its monitor how many rows were given together."""

    def forward(self, batch: Batch, model: Any = None) -> Prediction:
        SIZES[:] = [len(batch)]
        return super().forward(batch, model)


class LeavesGradients(Follows):
    """Leaves gradients behind in the host."""

    def answer(self, batch: Batch, inner: Answer) -> Prediction:
        prediction = super().answer(batch, inner)
        self.host.task_head.linear.weight.requires_grad_(True)  # type: ignore[union-attr]
        inner(batch).output.sum().backward()
        return prediction

    def reset(self) -> None:
        super().reset()
        self.host.task_head.linear.weight.grad = torch.zeros_like(self.host.task_head.linear.weight)  # type: ignore[union-attr]


class HidesItsState(Follows):
    """Keeps what it learned where nobody restores it."""

    def answer(self, batch: Batch, inner: Answer) -> Prediction:
        self.__dict__["drift"] = self.__dict__.get("drift", 0.0) + 1e-3
        prediction = super().answer(batch, inner)
        return replace(prediction, output=prediction.output + self.__dict__["drift"] * prediction.used.any(1)[:, None])


@pytest.mark.usefixtures("_known_to_saved_models")
@pytest.mark.parametrize(
    "promise", ["alone_or_together", "use_is_undone", "every_subset", "cached_is_naive", "seeded", "no_leak"]
)
def test_a_method_that_adapts_as_it_should_keeps_every_promise(promise: str) -> None:
    CHECKS[promise](adapting(Follows))


@pytest.mark.parametrize(
    ("cls", "promise", "message"),
    [
        (RemembersVelocity, "use_is_undone", "two streams from the calibrated state differ: by up to"),
        (DrawsAnew, "use_is_undone", "two streams from the calibrated state differ: by up to"),
        (HidesItsState, "use_is_undone", "two streams from the calibrated state differ: by up to"),
        (LeavesGradients, "use_is_undone", "after reset: gradients are left in model.task_head.linear.weight"),
        (ReadsTheBatch, "alone_or_together", "answers of a stream depend on its batches: in batches of 7 they move by up to"),
    ],
)  # fmt: skip
def test_a_method_that_does_not_adapt_as_it_should_is_seen(cls: Any, promise: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        CHECKS[promise](adapting(cls))


def adapting(monitor: type[Monitor]) -> Any:
    """A method of the plain model, its recipe with this monitor."""

    class Adapting(Undocumented):
        """Adapts in use."""

        @classmethod
        def pipeline(cls, schema: Schema, host: Any = None, dim: int = 32) -> Pipeline:
            return SizedPipeline(Plain(schema, dim), monitors=[monitor(schema)])  # type: ignore[call-arg]

    return Adapting


@pytest.fixture
def _known_to_saved_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """A monitor that no file holds can be saved as one that methods share."""
    for cls in (Follows, Learned):
        monkeypatch.setitem(COMPONENTS._things, cls.__name__, cls)
        monkeypatch.setitem(COMPONENTS._versions, cls.__name__, 1)


class Learned(Follows):
    """Counts as calibrated what it learned in use."""

    def answer(self, batch: Batch, inner: Answer) -> Prediction:
        prediction = super().answer(batch, inner)
        self.pipeline_in_use.__dict__.setdefault("first_", self.pipeline_in_use.calibrated)
        self.pipeline_in_use.__dict__["calibrated_"] = dict(self.pipeline_in_use.state_dict())
        return prediction

    def reset(self) -> None:
        super().reset()
        whole = self.pipeline_in_use
        whole.__dict__["calibrated_"] = whole.__dict__.get("first_", whole.calibrated)
        with torch.no_grad():
            self.bias.copy_(whole.calibrated.get("monitors.0.bias", self.bias))


@pytest.mark.usefixtures("_known_to_saved_models")
def test_a_model_that_saves_what_it_learned_in_use_is_seen() -> None:
    with pytest.raises(AssertionError, match=r"saved after use holds what it learned in use: monitors\.0\.bias"):
        CHECKS["use_is_undone"](adapting(Learned))


# restorers ------------------------------------------------------------------------------------------------------------
class Fills(Restorer):
    """Fills every hole with zeros, and rows with nothing too."""

    def __init__(self, schema: Schema) -> None:
        super().__init__()

    def restore(self, batch: Batch) -> Batch:
        inputs, mask = dict(batch.inputs), dict(batch.mask)
        for column, name in enumerate(batch.names):
            here, x = batch.present[:, column], batch.inputs[name]
            wide = here.view(-1, *[1] * (x.ndim - 1))
            inputs[name] = torch.where(wide, x, torch.zeros_like(x))
            if name in mask:
                mask[name] = mask[name] | ~here[:, None]
        return replace(batch, inputs=inputs, mask=mask, present=torch.ones_like(batch.present))


class FillsInUseOnly(Fills):
    """Leaves the rows of training as they are."""

    def restore(self, batch: Batch) -> Batch:
        return batch if self.training else super().restore(batch)


def restoring(restorer: type[Restorer]) -> Any:
    class Restoring(Undocumented):
        """The plain model behind a restorer."""

        @classmethod
        def pipeline(cls, schema: Schema, host: Any = None, dim: int = 32) -> Pipeline:
            return Pipeline(cls(schema, dim), restore=restorer(schema))  # type: ignore[call-arg]

    return Restoring


@pytest.mark.parametrize(
    "promise", ["every_subset", "no_leak", "restored_in_training_too", "alone_or_together", "cached_is_naive"]
)
def test_a_restorer_that_fills_every_hole_breaks_no_promise(promise: str) -> None:
    CHECKS[promise](restoring(Fills))


def test_a_restorer_that_training_never_meets_is_seen() -> None:
    with pytest.raises(
        AssertionError, match="the model is trained on image as it came, damaged, and asked with image restored"
    ):
        CHECKS["restored_in_training_too"](restoring(FillsInUseOnly))


# what an answer says of itself ----------------------------------------------------------------------------------------
def an_answer(**said: Any) -> tuple[Prediction, Batch, Any]:
    """Three rows of two modalities: with both, with the first, with nothing."""
    task = toy(rows=24, modalities=2).schema.task
    present = torch.tensor([[True, True], [True, False], [False, False]])
    output = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    batch = Batch(("m0", "m1"), {"m0": torch.zeros(3, 8), "m1": torch.zeros(3, 8)}, present, torch.arange(3))
    return Prediction(output, present, **said), batch, task


EVEN, NONE = [0.25] * 4, [math.nan] * 4
# entropy of softmax(2, 0, 0, 0) over log 4, by hand: p = e^2 / (e^2 + 3) = 0.71123, three times 0.09626
ENTROPY = [-(0.711235 * math.log(0.711235) + 3 * 0.096255 * math.log(0.096255)) / math.log(4), 1.0, math.nan]


def test_an_answer_that_says_what_it_knows_has_no_fault() -> None:
    answer, batch, task = an_answer(
        uncertainty=torch.tensor(ENTROPY),
        embedding=torch.tensor([[1.0, 2.0], [0.0, 1.0], [math.nan, math.nan]]),
        unimodal={"m0": torch.tensor([EVEN, EVEN, NONE]), "m1": torch.tensor([EVEN, NONE, NONE])},
        reliability=torch.tensor([[1.0, 0.5], [0.0, math.nan], [math.nan, math.nan]]),
        weights=torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.0, 0.0]]),
        restored={"m0": torch.zeros(3, 8)},
    )
    assert list(wrong_with(answer, batch, task)) == []


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"uncertainty": torch.tensor([[0.5], [0.5], [math.nan]])}, "the uncertainty has the shape [3, 1], not [3]"),
        ({"uncertainty": torch.tensor([0.5, 1.5, math.nan])}, "the uncertainty is not between 0 and 1 everywhere"),
        ({"uncertainty": torch.tensor([0.5, math.nan, math.nan])}, "the uncertainty is NaN in rows that were answered"),
        ({"uncertainty": torch.tensor([*ENTROPY[:2], 1.0])}, "the uncertainty is a number where the prior spoke"),
        ({"uncertainty": torch.tensor([0.5, 1.0, math.nan])}, "the uncertainty is not the normalised entropy of the answer"),
        ({"embedding": torch.zeros(3)}, "the embedding has the shape [3], not [3, D]"),
        ({"embedding": torch.zeros(3, 2)}, "the embedding is a number where the prior spoke"),
        ({"embedding": torch.tensor([[1.0, math.nan], [1.0, 1.0], [math.nan] * 2])}, "the embedding of some row is NaN in part"),
        ({"unimodal": {"m7": torch.zeros(3, 4)}}, "there is a unimodal answer of 'm7', and no such modality"),
        ({"unimodal": {"m0": torch.zeros(3)}}, "the unimodal answer of m0 has the shape [3], not [3, 4]"),
        ({"unimodal": {"m1": torch.tensor([EVEN, EVEN, NONE])}}, "the unimodal answer of m1 is a number in rows without m1"),
        ({"unimodal": {"m1": torch.tensor([NONE, NONE, NONE])}}, "the unimodal answer of m1 is NaN in rows in which it was used"),
        ({"unimodal": {"m1": torch.tensor([[2.0, -1, 0, 0], NONE, NONE])}}, "of m1 is not between 0 and 1 everywhere"),
        ({"unimodal": {"m1": torch.tensor([[0.5] * 4, NONE, NONE])}}, "of m1 is no probabilities: they do not sum to 1"),
        ({"reliability": torch.zeros(3)}, "reliability have the shape [3], not [3, 2]"),
        ({"reliability": torch.ones(3, 2)}, "reliability is not NaN exactly where a modality is absent"),
        ({"reliability": torch.tensor([[1.0, 3.0], [1, math.nan], [math.nan] * 2])}, "reliability is not between 0 and 1"),
        ({"weights": torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.0, 0.0]])}, "a modality that was not used has a weight above 0"),
        ({"weights": torch.tensor([[1.5, -0.5], [1.0, 0.0], [0.0, 0.0]])}, "some weight of a modality is below 0"),
        ({"restored": {"m0": torch.zeros(3, 7)}}, "restored 'm0' has not the shape of an input of that name"),
    ],
)  # fmt: skip
def test_an_answer_that_says_what_cannot_be_is_seen(said: dict[str, Any], message: str) -> None:
    answer, batch, task = an_answer(**said)
    faults = list(wrong_with(answer, batch, task))
    assert any(message in fault for fault in faults), faults


def test_evidence_may_stand_for_the_entropy_and_a_variance_may_be_large() -> None:
    answer, batch, task = an_answer(uncertainty=torch.tensor([0.5, 1.0, math.nan]))
    assert list(wrong_with(answer, batch, task, "one minus the largest probability")) == []
    numbers = toy("regression", rows=24, modalities=2).schema.task
    output, variance = torch.zeros(3, 1), torch.tensor([[9.0], [0.1], [math.nan]])
    assert list(wrong_with(replace(answer, output=output, uncertainty=variance), batch, numbers)) == []
    faults = list(wrong_with(replace(answer, output=output, uncertainty=-variance), batch, numbers))
    assert faults == ["the variance is not between 0 and inf everywhere"]


class SaysByBatch(Undocumented):
    """Has weights that depend on the rows around."""

    def fuse(self, features: Features) -> Fused:
        fused = super().fuse(features)
        assert fused.weights is not None
        return replace(fused, weights=fused.weights / len(features.present))


def test_what_is_said_of_a_row_may_not_depend_on_its_batch() -> None:
    with pytest.raises(AssertionError, match="weights of a row depends on its batch"):
        CHECKS["says_what_it_knows"](SaysByBatch)


# figures over seeds ---------------------------------------------------------------------------------------------------
def by_seed(fixture: Fixture) -> Claims:
    """Figures that can be worked out by hand: 2, 3, 4 on the method and -1 on the ablation."""
    yield Claim("two", -1.0 if is_ablated(fixture) else 2.0 + fixture.seed, at_least=0.0)
    yield Claim("exact", 0.0, at_most=0.0)


def test_margins_and_spreads_of_claims_are_those_of_their_figures() -> None:
    two, exact = measure_claims(with_claims(by_seed, "two"), 3)
    assert (two.figures, two.figure, two.margin, two.spread) == ((2.0, 3.0, 4.0), 3.0, 3.0, 1.0)
    assert (two.firmness, two.on_ablation, two.fails_on_ablation, two.named, two.fault) == (3.0, -1.0, True, True, None)
    assert (exact.spread, exact.firmness, exact.named, exact.fault) == (0.0, math.inf, False, None)
    assert rows_of([two, exact]) == [
        ("* two", "3", "at least 0", "3", "1", "3.0", "-1"), ("  exact", "0", "at most 0", "0", "0", "exact", "0"),
    ]  # fmt: skip
    assert Measured.from_json(json.loads(json.dumps(two.to_json()))) == two


def test_a_claim_that_holds_by_luck_or_fails_or_is_kept_by_the_ablation_is_a_fault() -> None:
    two = measure_claims(with_claims(by_seed, "two"), 3)[0]
    assert replace(two, margin=2.9).fault == (
        "claim 'two' holds by luck: its margin 2.9 is 2.9 times its spread 1 over 3 seeds, and 3 times is wanted"
    )
    assert replace(two, margin=-0.5).fault == "claim 'two' fails: 3 on average, at least 0"
    assert replace(two, fails_on_ablation=False).fault == (
        "claim 'two': with some seed the ablation keeps it, or does not state it"
    )
    with pytest.raises(ConfigError, match="two seeds or more, not 1"):
        measure_claims(with_claims(by_seed, "two"), 1)


def changing(fixture: Fixture) -> Claims:
    yield Claim("two" if fixture.seed == 0 else "three", 2.0 - 3 * is_ablated(fixture), at_least=1.0)


def test_other_claims_with_another_seed_are_seen() -> None:
    with pytest.raises(AssertionError, match="with seed 1 other claims are stated than with seed 0: 'three', 'two'"):
        measure_claims(with_claims(changing, "two"), 2)


def test_figures_are_kept_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kintsugi.testing import claim_figures

    monkeypatch.setattr(claim_figures, "checkout", lambda: tmp_path)
    assert recorded("mmin") is None
    measured = measure_claims(with_claims(by_seed, "two"), 3)
    assert record("mmin", measured) == tmp_path / "docs" / "claims" / "mmin.json"
    assert recorded("mmin") == measured
    monkeypatch.setattr(claim_figures, "checkout", lambda: None)
    with pytest.raises(ConfigError, match="are kept in its checkout"):
        record_file("mmin")


def claim_names(cls: Any) -> set[str]:
    """Names of claims that stand as texts in the file of a method, under Claim(...)."""
    source = METHODS.entries[cls.card.key].file.read_text(encoding="utf-8")
    tree = ast.parse(source)
    texts = {
        target.id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    firsts = [
        node.args[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Claim" and node.args
    ]
    names = [first.value if isinstance(first, ast.Constant) else texts.get(ast.unparse(first)) for first in firsts]
    return {name for name in names if isinstance(name, str)}


@pytest.mark.skipif(checkout() is None, reason="figures are kept in the source checkout")
@pytest.mark.parametrize("key", METHODS.names())
def test_the_claims_of_every_method_were_measured_and_are_firm(key: str) -> None:
    """What is recorded is of the claims as they are now; no training here."""
    measured = recorded(key)
    assert measured is not None, f"no figures yet: kintsugi check {key} --seeds 5 --record"
    names = {m.claim for m in measured}
    assert set(METHODS.card(key).claims) == {m.claim for m in measured if m.named}
    assert claim_names(METHODS[key]) <= names, f"other claims are stated: kintsugi check {key} --seeds 5 --record"
    assert [m.fault for m in measured if m.fault] == []
    assert all(len(m.figures) >= 5 and m.firmness >= FIRM for m in measured)


# what the promises are tried on ---------------------------------------------------------------------------------------
def test_what_was_trained_is_kept_for_the_last_classes_only() -> None:
    shelf, made = Shelf(classes=2), itertools.count()
    for cls in (int, int, str, int, float, int, str):
        shelf.get(cls, "run", lambda: next(made))
    # int, str are made; int is asked for again, so that float sends str away, which is made anew
    assert next(made) == 4
    assert len(shelf) == 2
    assert shelf.holds(str, "run")
    assert not shelf.holds(float, "run")
    shelf.clear()
    assert len(shelf) == 0


def test_a_fixture_trains_once_and_hands_out_copies() -> None:
    SHELF.clear()
    fixture = kintsugi.testing.Fixture(Undocumented, epochs=1)
    assert not fixture.is_trained()
    first = fixture.trained()
    assert fixture.is_trained()
    second = kintsugi.testing.Fixture(Undocumented, epochs=1).trained()
    assert first is not second
    with torch.no_grad():
        first.model.task_head.linear.weight.zero_()  # type: ignore[union-attr]
    assert bool(second.model.task_head.linear.weight.any())  # type: ignore[union-attr]
    fixture.splits = Splits(fixture.splits.val, fixture.splits.val)
    assert not fixture.is_trained()
    other = fixture.trained()
    assert not torch.equal(other.model.prior, second.model.prior) or not trials.same(
        other.model.task_head.linear.weight,
        second.model.task_head.linear.weight,  # type: ignore[union-attr]
    )


@pytest.mark.parametrize("kind", ["vector", "image", "series", "text", "tabular"])
def test_the_plain_host_learns_a_world_of_any_kind_with_holes(kind: str) -> None:
    world = kintsugi.testing.Fixture(Undocumented, epochs=8).world(kind=kind, holes=0.2, correlated=True)
    assert {m.kind for m in world.schema.modalities} == {kind}
    assert world.data.present.float().mean().item() == pytest.approx(0.8, abs=0.05)
    assert bool(world.data.present[:12].all())
    assert bool(world.data.present.any(1).all())
    test: Any = world.splits.test
    batch = trials.everything(test)
    answer = trials.ask(world.trained(), batch).output
    assert float((answer.argmax(1) == batch.target).float().mean()) > 0.6


def test_channels_of_a_correlated_series_have_most_in_common() -> None:
    for correlated, bound in ((True, 0.7), (False, 0.4)):
        batch = trials.everything(toy(kind="series", correlated=correlated))
        x = batch.inputs["m0"][batch.mask["m0"]]
        r = torch.corrcoef(x.T)[0, 1:]
        assert bool((r > bound).all()) if correlated else bool((r.abs() < bound).all()), r


def test_mixed_data_has_every_kind_and_what_may_not_be_read_is_poison() -> None:
    data = mixed("classification", absent=0.3, poison=True, modalities=5)
    assert [m.kind for m in data.schema.modalities] == ["image", "text", "tabular", "series", "vector"]
    batch = trials.everything(data)
    for column, name in enumerate(batch.names):
        x, here = batch.inputs[name], batch.present[:, column]
        unread = (x == 10**6) if name == "text" else torch.isnan(x)
        assert bool(unread[~here].all())
        seen = here.view(-1, *[1] * (x.ndim - 1)).expand_as(x)
        if name in batch.mask:
            seen = seen & batch.mask[name].view(*batch.mask[name].shape, *[1] * (x.ndim - 2))
        assert not bool(unread[seen].any())
    with pytest.raises(ConfigError, match=r"mixed data has 5 modalities \(image, text, table, series, vector\), not 6"):
        mixed("classification", modalities=6)


def test_scores_do_not_read_what_with_missing_hid() -> None:
    scores = []
    for other in (False, True):
        data = trials.table_of(Undocumented, "classification", other, other)
        train, val, test = data.split()
        pipeline = Trainer(epochs=1, batch_size=48, progress=False).fit(
            trials.build(Undocumented, data.schema), Splits(train, val)
        )
        scores.append(evaluate(pipeline, test, "subsets").summary())
    assert scores[0].equals(scores[1])
    assert scores[0].shape[1] > 5


def test_hidden_tables_differ_under_the_holes_alone() -> None:
    plain, other = (trials.table_of(Undocumented, "classification", x, x) for x in (False, True))
    one, two = trials.everything(plain), trials.everything(other)
    assert torch.equal(one.present, two.present)
    assert plain.fingerprint == other.fingerprint
    whole, changed = (data.source.read(torch.arange(144)) for data in (plain, other))
    for column, name in enumerate(one.names):
        here = one.present[:, column]
        gone = here.logical_not() & plain.observed[:, column]
        assert int(gone.sum()) > 5
        assert not torch.equal(whole.inputs[name][gone], changed.inputs[name][gone])
        if name not in one.mask:
            assert torch.equal(whole.inputs[name][here], changed.inputs[name][here])
    assert one.target_present is not None
    assert bool((whole.target != changed.target)[~one.target_present].all())  # type: ignore[union-attr]
    assert torch.equal(whole.target[one.target_present], changed.target[one.target_present])  # type: ignore[index]


def notebook(source: str, key: str, cell: str) -> Any:
    """The class of a method that stands in no file, as in a notebook."""
    module = ModuleType(f"notebook_{key}")
    sys.modules[module.__name__] = module
    exec(compile(source, cell, "exec", dont_inherit=True), vars(module))
    return METHODS[key]


@pytest.fixture
def forgetting() -> Any:
    """Methods and modules that a test registers are gone afterwards."""
    classes, modules = dict(METHODS._classes), set(sys.modules)
    yield
    METHODS._classes.clear()
    METHODS._classes.update(classes)
    for name in set(sys.modules) - modules:
        if name.startswith(("notebook_", "kintsugi_plugin_")):
            del sys.modules[name]


EXAMPLE = (Path(__file__).parent.parent / "docs" / "examples" / "max_fusion.py").read_text(encoding="utf-8")


@pytest.mark.usefixtures("forgetting")
def test_a_method_of_a_notebook_keeps_every_promise() -> None:
    notebook(EXAMPLE, "max_fusion", "<cell>")
    check_method("max_fusion")


@pytest.mark.usefixtures("forgetting")
def test_a_cell_that_is_run_again_is_checked_as_it_is_now() -> None:
    first = notebook(EXAMPLE, "max_fusion", "<cell>")
    CHECKS["every_subset"](first)
    broken = EXAMPLE.replace("return Fused.vector(self.gain *", "return Fused.vector(torch.nan *")
    assert broken != EXAMPLE
    second = notebook(broken, "max_fusion", "<cell>")
    assert second is not first
    with pytest.raises(Exception, match="not finite"):
        CHECKS["every_subset"](second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"own": "gain: factor of the maximum before the head.", "new": "none."}, "argument gain is not explained"),
        ({"own": "    Args:\n", "new": ""}, "MaxFusion explains no arguments under Args:"),
        ({"own": "@ablation_of(MaxFusion)\n", "new": ""}, "it has no ablation"),
        ({"own": "@claims_of(MaxFusion)\n", "new": ""}, "it states no claim"),
    ],
)
@pytest.mark.usefixtures("forgetting")
def test_what_a_method_does_not_say_of_itself_is_seen(change: dict[str, str], message: str) -> None:
    source = EXAMPLE.replace(change["own"], change["new"])
    assert source != EXAMPLE
    with pytest.raises(AssertionError, match=message):
        CHECKS["card_is_true"](notebook(source, "max_fusion", "<cell>"))


def test_a_class_under_a_key_that_is_not_its_own_is_seen() -> None:
    class Other(Plain):  # type: ignore[misc,valid-type]
        """Another one."""

    with pytest.raises(AssertionError, match="under the key 'mean_fusion' another class is registered"):
        CHECKS["card_is_true"](Other)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("leaf", "general", r"the card's leaf is general, and the file is in methods/missing/generative"),
        ("file", "mmin2.py", r"the file is called mmin2.py; of this library it is mmin.py, by its key"),
    ],
)
def test_a_method_of_the_library_stands_where_it_says(
    field: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls, text = METHODS["mmin"], METHODS.entries["mmin"]
    if field == "leaf":
        monkeypatch.setattr(cls, "card", replace(cls.card, leaf=value))
    else:
        monkeypatch.setitem(METHODS.entries, "mmin", replace(text, file=text.file.with_name(value)))
    with pytest.raises(AssertionError, match=message):
        CHECKS["card_is_true"](cls)


def test_a_file_of_several_methods_need_not_have_the_name_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    text = METHODS.entries["mmin"]
    elsewhere = replace(text, file=text.file.with_name("family.py"))
    monkeypatch.setitem(METHODS.entries, "mmin", elsewhere)
    monkeypatch.setitem(METHODS.entries, "sibling", replace(elsewhere, card=replace(text.card, key="sibling")))
    CHECKS["card_is_true"](METHODS["mmin"])


def test_an_unknown_method_cannot_be_checked() -> None:
    with pytest.raises(UnknownName, match="did you mean 'mmin'"):
        check_method("mmim")


def test_no_promise_is_an_assert_statement_that_python_may_leave_out() -> None:
    folder = Path(str(kintsugi.testing.__file__)).parent
    files = [*sorted(folder.glob("promises*.py")), *(folder / f"{name}.py" for name in SUPPORT)]
    assert len(files) > 9
    bare = [
        f"{file.name}:{node.lineno}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Assert)
    ]
    assert bare == []


SUPPORT = ("trials", "fixture", "toys", "holding", "shelf", "claim_figures", "changed")


def test_promises_hold_under_python_that_leaves_assert_statements_out() -> None:
    source = (
        "from kintsugi.testing import CHECKS\n"
        "from kintsugi.core.methods import METHODS\n"
        "cls = METHODS['mean_fusion']\n"
        "cls.enough = lambda self, present: present.any(1) | True\n"
        "try:\n    CHECKS['every_subset'](cls)\n"
        "except AssertionError as error:\n    print(error)\n"
    )
    child = subprocess.run([sys.executable, "-O", "-c", source], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "a row with nothing does not get the prior"
