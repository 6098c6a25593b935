"""Methods of several mechanisms: an ablation for each, which claims fail on it, and what it may change beside the mechanism."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from kintsugi.core.card import Card
from kintsugi.core.claims import Claim, Claims
from kintsugi.core.data import Splits
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.features import Features, Fused
from kintsugi.core.fixture import Fixture
from kintsugi.core.methods import (
    METHODS,
    ablation_of,
    build_ablation,
    build_pipeline,
    claims_of,
    create,
    judged_ablations,
)  # fmt: skip
from kintsugi.core.model import Model
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.schema import Schema
from kintsugi.core.stage import Stage
from kintsugi.core.wrappers import Strategy
from kintsugi.imperfect import mcar
from kintsugi.methods.corrupted.augmentation.random_subsets import RandomSubsets, WholeRows
from kintsugi.methods.missing.alignment.m3care import M3Care
from kintsugi.methods.missing.distillation.kd_mm import KDMM
from kintsugi.methods.missing.prompt.missing_aware_prompts import MissingAwarePrompts
from kintsugi.testing.fixture import Fixture as Toy
from kintsugi.testing.fixture import toy
from kintsugi.testing.promises_of_training import ablation_is_sound, claims_hold, stated
from kintsugi.training.trainer import Trainer

CARD = Card(
    key="two_parts", name="Two parts", leaf="general", faithful=("all",), claims=("large", "bent"),
    imperfection=("missing at test",), premise="none", confidence="high", tasks=("classification",),
)  # fmt: skip


def two_parts() -> tuple[Any, Any]:
    """A method that makes what it fuses large, and bends it; and its ablations: of all, by a class and by an argument."""

    class TwoParts(Model):
        """Large and bent."""

        card = CARD

        def __init__(self, schema: Schema, dim: int = 32, gain: float = 3.0, bend: bool = True) -> None:
            super().__init__(schema, dim)
            self.gain, self.bend = gain, bend

        def fuse(self, features: Features) -> Fused:
            x = super().fuse(features).pooled() * self.gain
            return Fused.vector(x.tanh() * self.gain if self.bend else x)

    ablation_of(TwoParts, gain=1.0, bend=False)
    ablation_of(TwoParts, "size", gain=1.0)

    @ablation_of(TwoParts, "bend")
    class Straight(TwoParts):
        """Large alone."""

        def __init__(self, schema: Schema, dim: int = 32, gain: float = 3.0) -> None:
            super().__init__(schema, dim, gain, bend=False)

    @claims_of(TwoParts)
    def claims(fixture: Fixture) -> Claims:
        model: Any = fixture.pipeline().model
        yield Claim("large", model.gain, at_least=2.0)
        yield Claim("bent", float(model.bend), at_least=1.0)

    return TwoParts, Straight


def test_an_ablation_takes_all_mechanisms_or_the_one_that_is_named() -> None:
    cls, straight = two_parts()
    schema = toy(rows=20).schema
    found = {part: build_ablation(cls, schema, part, dim=4).model for part in ("", "size", "bend")}
    assert {part: (type(m), m.gain, m.bend, m.dim) for part, m in found.items()} == {
        "": (cls, 1.0, False, 4), "size": (cls, 1.0, True, 4), "bend": (straight, 3.0, False, 4),
    }  # fmt: skip
    assert build_ablation(cls, schema, "bend", gain=5.0).model.gain == 5.0
    assert judged_ablations(cls) == ("size", "bend")
    assert judged_ablations(METHODS["mmin"]) == ("",), "the only one"
    assert judged_ablations(METHODS["kd_mm"]) == ("fall-back", "distillation")
    with pytest.raises(
        UnknownName, match="unknown mechanism of two_parts that an ablation takes away 'bent'; did you mean 'bend'"
    ):
        build_ablation(cls, schema, "bent")


def test_parts_belong_to_the_class_that_they_were_noted_for() -> None:
    cls, _ = two_parts()
    child: Any = type("Child", (cls,), {"__doc__": "One more."})
    ablation_of(child, "own", gain=2.0)
    assert tuple(child.ablations) == ("own",)
    assert tuple(cls.ablations) == ("size", "bend")
    assert tuple(METHODS["mean_fusion"].ablations) == ()


def test_a_fixture_is_ablated_by_the_name_of_a_part() -> None:
    cls, straight = two_parts()
    assert Toy(cls, "size").pipeline().model.gain == 1.0
    assert type(Toy(cls, "bend").pipeline().model) is straight
    assert stated(cls, ablated="bend")["large"].holds
    assert not stated(cls, ablated="bend")["bent"].holds


def test_a_method_of_two_parts_keeps_its_promises() -> None:
    cls, _ = two_parts()
    claims_hold(cls)
    ablation_is_sound(cls)


def test_a_part_on_which_no_claim_of_the_card_fails_tests_nothing() -> None:
    cls, _ = two_parts()
    cls.card = replace(CARD, claims=("large",))
    with pytest.raises(AssertionError, match="without 'bend' the method keeps every claim of its card"):
        claims_hold(cls)


def test_a_part_that_is_no_sound_model_is_named() -> None:
    cls, straight = two_parts()

    @ablation_of(cls, "sense")
    class Senseless(straight):  # type: ignore[misc, valid-type]
        """Hands on nothing."""

        def fuse(self, features: Features) -> Fused:
            return Fused.vector(super().fuse(features).pooled() * 0)

    assert tuple(cls.ablations) == ("size", "bend", "sense")
    with pytest.raises(AssertionError, match=r"^with sense off: "):
        ablation_is_sound(cls)


def test_a_part_that_ends_with_an_error_says_so() -> None:
    cls, _ = two_parts()

    @claims_of(cls)
    def claims(fixture: Fixture) -> Claims:
        model: Any = fixture.pipeline().model
        yield Claim("large", model.gain, at_least=2.0)
        yield Claim("bent", 1 / model.bend if model.gain > 1 else 0.0, at_least=1.0)

    with pytest.raises(AssertionError, match="stating the claims on the ablation ends with ZeroDivisionError"):
        claims_hold(cls)


# ablations change the mechanism alone -----------------------------------------------------------------------------------
OLDER = (
    "ccm", "centaur", "corruption_augmentation", "early_fusion", "kd_mm", "late_fusion", "m3care", "mean_fusion", "midl",
    "missing_aware_prompts", "mmin", "monig", "random_subsets", "smil",
)  # fmt: skip
MATCHED = [(key, part) for key in OLDER for part in judged_ablations(METHODS[key])]
# What another number of parameters moves, and why: the target of mmin's imagination trains modules that no answer passes.
OTHER_SIZE = {"mmin": 0.55, "early_fusion": 0.02}


def parts_of(key: str, part: str | None) -> tuple[list[tuple[str, str, float, str, str | None, str]], int]:
    """Of each stage: component, name, fraction, rows, auxiliary rows and view; and how many numbers may move."""
    card: Card = METHODS[key].card
    schema = toy(card.tasks[0], rows=20).schema
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = build_pipeline(METHODS[key], schema) if part is None else build_ablation(METHODS[key], schema, part)
    stages = [
        (path, s.name, s.fraction, s.rows, s.auxiliary, str(getattr(s.view, "__name__", s.view)))
        for path, s in built.stages()
    ]
    return stages, sum(p.numel() for p in built.parameters() if p.requires_grad)


@pytest.mark.parametrize(("key", "part"), MATCHED)
def test_an_ablation_has_the_stages_rows_views_and_parameters_of_its_method(key: str, part: str) -> None:
    (stages, moving), (others, left) = parts_of(key, None), parts_of(key, part)
    if key == "random_subsets":  # whose mechanism is the view
        stages = [(*rest, "natural") for *rest, _ in stages]  # type: ignore[misc]
    assert others == stages
    assert left == pytest.approx(moving, rel=OTHER_SIZE.get(key, 0.0))


def splits(rate: float = 0.0) -> Splits:
    train, val, test = toy(rows=96, dim=5).split()
    return Splits(train.with_missing(mcar(rate), seed=1) if rate else train, val, test)


def trained(pipeline: Pipeline, data: Splits) -> Trainer:
    trainer = Trainer(epochs=2, batch_size=16, progress=False)
    trainer.fit(pipeline, data, strip=False)
    return trainer


def test_without_distillation_the_student_learns_from_labels_and_the_teachers_still_answer_rows_with_holes() -> None:
    data = splits(0.3)
    pipeline = build_ablation(KDMM, data.train.schema, "distillation", dim=4)
    terms = {name for record in trained(pipeline, data).history for name in record if name.startswith("loss/")}
    assert terms == {"loss/task"}
    rows = data.train.batch(torch.arange(len(data.train)))
    holes = ~rows.present.all(1)
    alone = pipeline.model(rows).output
    assert not torch.allclose(pipeline.eval()(rows).output[holes], alone[holes])
    without = build_ablation(KDMM, data.train.schema, "fall-back", dim=4)
    assert "loss/kd" in trained(without, data).history[-1]
    assert torch.equal(without.eval()(rows).output, without.model(rows).output)


def test_the_meta_step_alone_is_gone_where_the_inner_rate_is_zero() -> None:
    """The outer loss is then that of complete rows at the weights as they are: plain training on two batches."""
    data = splits(0.3)
    smil: Any = METHODS["smil"]
    model: Any = build_ablation(smil, data.train.schema, "meta step", dim=4).double().model
    model.clock.stage = "meta"
    model.eval()  # posterior means: nothing is drawn
    rows = data.train.batch(data.train.positions("incomplete")[:8]).map(
        lambda x: x.double() if x.is_floating_point() else x
    )
    whole = data.train.batch(data.train.positions("complete")[:8]).map(
        lambda x: x.double() if x.is_floating_point() else x
    )
    losses = type(model).step(model, replace(rows, auxiliary=whole)).losses
    holes = whole.where(model.holes(rows, 8))
    assert whole.target is not None
    answers = [model(x).output for x in (whole, holes)]
    plain = torch.stack([torch.nn.functional.cross_entropy(answer, whole.target) for answer in answers]).sum()
    assert float(losses["outer"].detach()) == pytest.approx(float(plain.detach()), abs=1e-12)
    slopes = [
        torch.autograd.grad(x, list(model.trunk.parameters()), retain_graph=True) for x in (losses["outer"], plain)
    ]
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*slopes, strict=True)), "nothing passes the inner step"


def test_shared_prompts_are_the_mean_of_all_cases_whatever_the_pattern() -> None:
    schema = toy(rows=20).schema
    model: Any = build_ablation(MissingAwarePrompts, schema, dim=8).model
    with torch.no_grad():
        model.prompts.table.normal_(generator=torch.Generator().manual_seed(0))
    pattern = torch.tensor([[True, False, False], [True, True, True]])
    for layer, prompt in enumerate(model.prompts_of(pattern)):
        expected = sum(model.prompts.table[case, layer] for case in range(7)) / 7
        assert torch.allclose(prompt[0], expected, atol=1e-6)
        assert torch.equal(prompt[0], prompt[1])


@pytest.mark.parametrize(("rate", "partly"), [(0.0, True), (0.02, True), (0.3, False)])
def test_prompts_learn_from_parts_of_rows_only_where_hardly_any_row_has_holes(rate: float, partly: bool) -> None:
    data = splits(rate)
    incomplete = float((~data.train.present.all(1)).float().mean())
    assert (incomplete < 0.1) == partly
    pipeline = build_pipeline(MissingAwarePrompts, data.train.schema, dim=8)
    trainer, seen = Trainer(epochs=2, batch_size=16, progress=False), list[Any]()
    trainer.observers.append(lambda losses: seen.append(losses))
    trainer.fit(pipeline, data)
    hidden = [x.batch.truth is not None for x in seen if x.stage.name == "prompts"]
    assert all(hidden) if partly else not any(hidden)


def test_a_model_of_prompts_that_version_2_saved_answers_as_it_did() -> None:
    assert MissingAwarePrompts.arguments_of_version(2, {"dim": 8}) == {"dim": 8}
    assert MissingAwarePrompts.arguments_of_version(1, {"dim": 8}) is None


def test_where_likeness_is_misled_a_row_takes_from_each_sender_by_its_likeness_to_another() -> None:
    data = splits()
    makers: tuple[Any, ...] = (build_pipeline, _unalike)
    own, other = (make(M3Care, data.train.schema, dim=4).model.graph for make in makers)
    other.load_state_dict(own.state_dict())
    noise = torch.Generator().manual_seed(0)
    latent, stored = torch.randn(3, 3, 4, generator=noise), torch.randn(5, 3, 4, generator=noise)
    here, known = torch.ones(3, 3, dtype=torch.bool), torch.ones(5, 3, dtype=torch.bool)
    right, wrong = (graph.likeness(latent, here, stored, known) for graph in (own, other))
    assert torch.allclose(wrong, right[:, [4, 0, 1, 2, 3]], atol=1e-6)


def _unalike(cls: Any, schema: Schema, **hyper: Any) -> Pipeline:
    return build_ablation(cls, schema, "likeness", **hyper)


# random subsets -----------------------------------------------------------------------------------------------------------
class Staged(Model):
    """Three stages, of which one has a view of its own."""

    def stages(self) -> list[Stage]:
        return [Stage("whole"), Stage("single", view="one"), Stage("last", rows="complete")]


def test_random_subsets_are_the_view_of_stages_that_have_none_of_their_own() -> None:
    schema = toy(rows=20).schema
    pipeline = create("random_subsets", schema, host=Staged(schema, 4))
    assert [(s.name, s.view, s.rows) for _, s in pipeline.stages()] == [
        ("whole", "subsets", "all"), ("single", "one", "all"), ("last", "subsets", "complete"),
    ]  # fmt: skip
    off = build_ablation(RandomSubsets, schema)
    assert [s.view for _, s in off.stages()] == ["natural"]


@pytest.mark.parametrize("part", [RandomSubsets, WholeRows])
def test_random_subsets_refuse_a_host_that_never_descends(part: type[RandomSubsets]) -> None:
    schema = toy("regression", rows=20).schema
    with pytest.raises(ConfigError, match="DISCOM is solved in closed form"):
        Pipeline(create("discom", schema).model, strategies=[part(schema)])


def test_random_subsets_train_a_host_as_a_strategy_of_one_s_own_would_and_leave_nothing_in_use() -> None:
    class Own(Strategy):
        def adjust_stages(self, stages: list[Stage]) -> list[Stage]:
            return [replace(stage, view="subsets") for stage in stages]

    data, ends = splits(0.2), []

    def named(host: Model) -> Pipeline:
        return create("random_subsets", data.train.schema, host=host)

    for make in (named, lambda host: Pipeline(host, strategies=[Own()])):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            host: Any = create("mean_fusion", data.train.schema, dim=4).model
        pipeline = make(host)
        Trainer(epochs=3, batch_size=16, progress=False).fit(pipeline, data)
        assert pipeline.strategies == [] or len(pipeline.strategies) == 0
        ends.append(host.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
