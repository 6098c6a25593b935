"""Tasks of other shapes, each with a model of its own, and nothing of the core changed for them: a map of classes, an
embedding to search by, identities that are drawn in groups, a label for each step, and an input that is to be restored."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanSquaredError, Metric
from torchmetrics.classification import MulticlassAccuracy

from kintsugi.core.batch import Batch
from kintsugi.core.data import Data, Splits
from kintsugi.core.encoder import own_encoders
from kintsugi.core.errors import ConfigError
from kintsugi.core.features import Features, Fused, Stream
from kintsugi.core.model import Model
from kintsugi.core.pipeline import Pipeline
from kintsugi.core.prediction import Prediction, Step
from kintsugi.core.schema import Modality, Schema
from kintsugi.core.stage import Stage
from kintsugi.core.task import Link, Order, StreamSpec, Task
from kintsugi.data.dataset import Dataset, TensorSource
from kintsugi.data.loaders import Loader, count, order
from kintsugi.evaluation import evaluate
from kintsugi.training.trainer import Trainer

ROWS = 96


def dataset(
    task: Task, modalities: tuple[Modality, ...], inputs: dict[str, Tensor], target: Tensor, **more: Any
) -> Dataset:
    """Rows of which the first 2/3 are for training, and 1/6 each for validation and test; the last lack the first modality."""
    n, names = len(target), tuple(inputs)
    present = torch.ones(n, len(names), dtype=torch.bool)
    present[-8:, 0] = False
    batch = Batch(names, inputs, present, torch.arange(n), target, **more)
    source = TensorSource(Schema(modalities, task), batch, task.key)
    parts = torch.arange(n).split([2 * n // 3, n // 6, n - 2 * n // 3 - n // 6])
    source.split = dict(zip(("train", "val", "test"), parts, strict=True))
    return Dataset(source)


def fitted(model: Model, data: Dataset, epochs: int = 12, **options: Any) -> Pipeline:
    pipeline = Pipeline(model)
    train, val, test = data.split()
    trainer = Trainer(epochs=epochs, lr=0.02, batch_size=16, progress=False, **options)
    return trainer.fit(pipeline, Splits(train, val, test)).eval()


@torch.no_grad()
def answer(pipeline: Pipeline, batch: Batch) -> Prediction:
    prediction: Prediction = pipeline(batch)
    return prediction


def whole(data: Data) -> Batch:
    return data.batch(torch.arange(len(data)))


def seeded(make: Any, *arguments: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(*arguments)


class Unnamed(Task):
    """What the stubs share: they are not registered and hold nothing that a file would keep."""

    def to_json(self) -> dict[str, Any]:
        return {"outputs": self.outputs}

    def classes(self, batch: Batch) -> Tensor:
        assert batch.target is not None
        return batch.target.reshape(len(batch), -1)[:, 0].long()


# segmentation -----------------------------------------------------------------------------------------------------------
class MapHead(nn.Module):
    """Tokens of a grid -> a map of class logits ``[B, C, H, W]``."""

    def __init__(self, spec: StreamSpec, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.dim, classes)

    def forward(self, stream: Stream) -> Tensor:
        assert stream.grid is not None
        return self.linear(stream.tokens).transpose(1, 2).unflatten(2, stream.grid)


class Segmentation(Unnamed):
    """A class for each pixel: output ``[B, C, H, W]`` logits, target int64 ``[B, H, W]``, -1 where nobody labelled it."""

    key = "segmentation"
    link: ClassVar[Link] = "softmax"
    outputs = 2
    names = ("background", "disc")

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.outputs, 8, 8)

    @property
    def prior_shape(self) -> tuple[int, ...]:
        return (self.outputs, 1, 1)

    def head(self, spec: StreamSpec) -> nn.Module:
        return MapHead(spec, self.outputs)

    def loss(self, output: Tensor, batch: Batch, rows: Tensor | None = None) -> Tensor:
        each = F.cross_entropy(output, self.target(batch), ignore_index=-1, reduction="none").flatten(1).mean(1)
        return self.mean(each, batch, rows)

    def metrics(self) -> dict[str, Any]:
        return {"pixel_accuracy": MulticlassAccuracy(self.outputs, average="micro", ignore_index=-1)}

    def prior(self, train: Data) -> Tensor:
        assert train.target is not None
        labels = train.target[train.target >= 0]
        counts = torch.bincount(labels, minlength=self.outputs).float() + 1
        return (counts / counts.sum()).log().view(self.prior_shape)


class Maps(Model):
    """Convolutions of each image, averaged pixel by pixel over the images that are there."""

    def __init__(self, schema: Schema, dim: int = 8) -> None:
        size = schema.modalities[0].shape[1:]
        grid = tuple(int(n or 1) for n in size)
        with own_encoders({m.name: nn.Conv2d(int(m.shape[0] or 1), dim, 3, padding=1) for m in schema.modalities}):
            super().__init__(schema, dim, fused=StreamSpec(dim, grid))

    def stages(self) -> list[Stage]:
        return [Stage("train", view="subsets")]

    def fuse(self, features: Features) -> Fused:
        streams = list(features.streams.values())
        tokens = torch.stack([stream.tokens.relu() for stream in streams], 1)
        weights = features.present.to(tokens.dtype)
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1)
        merged = (tokens * weights[..., None, None]).sum(1)
        return Fused(merged, torch.ones(merged.shape[:2], dtype=torch.bool), streams[0].grid, weights=weights)


def discs(n: int = ROWS) -> tuple[Tensor, dict[str, Tensor]]:
    """Masks of discs ``[N, 8, 8]``, and two images that show them, one of them darkened."""
    g = torch.Generator().manual_seed(0)
    centre = torch.rand(n, 2, 1, 1, generator=g) * 4 + 2
    across = torch.arange(8.0)
    far = (across[:, None] - centre[:, 0]).square() + (across - centre[:, 1]).square()
    mask = (far < 5).long()
    noise = 0.15 * torch.rand(2, n, 1, 8, 8, generator=g)
    return mask, {"t1": 0.8 * mask[:, None] + noise[0], "t2": 0.8 - 0.6 * mask[:, None] + noise[1]}


def scans() -> Dataset:
    mask, images = discs()
    mask[:, 0, 0] = -1
    return dataset(Segmentation(), tuple(Modality(name, "image", (1, 8, 8)) for name in images), images, mask)


def test_a_map_of_classes_is_learned_answered_for_every_subset_and_scored() -> None:
    data = scans()
    pipeline = fitted(seeded(Maps, data.schema), data, epochs=40)
    test = data.split()[2]
    batch, truth = whole(test), whole(test).target
    assert truth is not None
    for kept in (("t1", "t2"), ("t1",), ("t2",)):
        output = answer(pipeline, batch.only(*kept)).output
        assert output.shape == (len(batch), 2, 8, 8)
        assert bool(torch.isfinite(output).all())
        seen = batch.only(*kept).present.any(1)
        right = (output.argmax(1) == truth)[seen][truth[seen] >= 0]
        assert float(right.float().mean()) > 0.9
    results = evaluate(pipeline, test, "subsets", resamples=5)
    assert results.metrics == ["pixel_accuracy"]
    assert results.table["value"].min() > 0.85


def test_a_row_with_nothing_gets_the_same_prior_in_every_pixel() -> None:
    data = scans()
    pipeline = fitted(seeded(Maps, data.schema), data, epochs=1)
    train = data.split()[0]
    empty = answer(pipeline, whole(train).only())
    assert not bool(empty.used.any())
    torch.testing.assert_close(empty.output, data.schema.task.prior(train).expand(len(train), 2, 8, 8))


def test_the_uncertainty_of_a_map_is_the_mean_over_its_pixels() -> None:
    output = torch.zeros(2, 2, 8, 8)
    output[1, :, :4] = torch.tensor([40.0, -40.0])[:, None, None]
    found = Segmentation().uncertainty(output)
    assert found is not None
    torch.testing.assert_close(found, torch.tensor([1.0, 0.5]), atol=1e-5, rtol=0)


# retrieval --------------------------------------------------------------------------------------------------------------
class NearestIsSame(Metric):
    """Share of rows whose nearest other row, by cosine, has the same id: a measure of the matrix of all pairs."""

    higher_is_better = True
    full_state_update = False
    embeddings: list[Tensor]
    ids: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("embeddings", [], dist_reduce_fx="cat")
        self.add_state("ids", [], dist_reduce_fx="cat")

    def update(self, embeddings: Tensor, ids: Tensor) -> None:
        self.embeddings.append(embeddings)
        self.ids.append(ids)

    def compute(self) -> Tensor:
        ids = torch.cat(self.ids)
        nearest = similarities(torch.cat(self.embeddings)).fill_diagonal_(-2).argmax(1)
        return (ids[nearest] == ids).float().mean()


def similarities(queries: Tensor, gallery: Tensor | None = None) -> Tensor:
    """Cosines ``[Q, G]``."""
    other = queries if gallery is None else gallery
    return F.normalize(queries, dim=1) @ F.normalize(other, dim=1).T


class Retrieval(Unnamed):
    """An embedding to search by: output ``[B, D]``, target int64 ``[B]``, the id of what the row shows."""

    key = "retrieval"
    outputs = 8

    def head(self, spec: StreamSpec) -> nn.Module:
        return nn.Identity()  # the embedding is the answer

    def target(self, batch: Batch) -> Tensor:
        assert batch.target is not None
        return batch.target

    def loss(self, output: Tensor, batch: Batch, rows: Tensor | None = None) -> Tensor:
        """Supervised contrastive (Khosla et al., NeurIPS 2020) within the batch, at temperature 0.1."""
        ids = self.target(batch)
        alone = torch.eye(len(ids), dtype=torch.bool)
        same = (ids[:, None] == ids) & ~alone
        log_p = (similarities(output) / 0.1).masked_fill(alone, -1e9).log_softmax(1)
        each = -(log_p * same).sum(1) / same.sum(1).clamp(min=1)
        keep = same.any(1) if rows is None else rows & same.any(1)
        return self.mean(each, batch, keep)

    def metrics(self) -> dict[str, Any]:
        return {"nearest_is_same": NearestIsSame()}

    def prior(self, train: Data) -> Tensor:
        return torch.zeros(self.prior_shape)


class Embedder(Model):
    """Each modality in the same space: what describes a thing lies near what shows it."""

    def __init__(self, schema: Schema) -> None:
        super().__init__(schema, schema.task.outputs, fused=None)

    def head(self, fused: Fused, features: Features) -> Prediction:
        return Prediction(fused.pooled(), features.present, fused.pooled(), weights=fused.weights)


class AcrossModalities(Embedder):
    """Trained on pairs: the picture of a row has to find the text of the same row."""

    def step(self, batch: Batch) -> Step:
        picture, text = self(batch.only("picture")).output, self(batch.only("text")).output
        pairs = similarities(picture, text) / 0.1
        each = F.cross_entropy(pairs, torch.arange(len(pairs)), reduction="none")
        return Step({"pairs": self.task.mean(each, batch, batch.present.all(1))})


def things(task: Task, ids: Tensor, noise: float = 0.3) -> Dataset:
    """Pictures and texts, two views of a thing that has a place in four dimensions."""
    g = torch.Generator().manual_seed(1)
    places = torch.randn(int(ids.max()) + 1, 4, generator=g)[ids]
    maps = torch.randn(2, 4, 6, generator=g)
    views = {
        name: places @ maps[i] + noise * torch.randn(len(ids), 6, generator=g)
        for i, name in enumerate(("picture", "text"))
    }
    return dataset(task, tuple(Modality(name, "vector", (6,)) for name in views), views, ids)


def test_pictures_find_their_texts_with_a_query_and_a_gallery_side() -> None:
    data = things(Retrieval(), torch.arange(ROWS), noise=0.1)
    data = data.subset(data.present.all(1).nonzero().flatten())
    pipeline = fitted(seeded(AcrossModalities, data.schema), data, epochs=40)
    test = whole(data.split()[2])
    queries, gallery = answer(pipeline, test.only("picture")).output, answer(pipeline, test.only("text")).output
    found = (similarities(queries, gallery).argmax(1) == torch.arange(len(test))).float().mean()
    assert float(found) > 0.5  # chance: 1 of 13


def test_an_embedding_of_nothing_is_the_zero_vector_and_decides_nothing() -> None:
    data = things(Retrieval(), torch.arange(ROWS) // 4)
    pipeline = fitted(seeded(Embedder, data.schema), data)
    empty = answer(pipeline, whole(data).only())
    assert empty.output.eq(0).all()
    assert not bool(empty.used.any())
    task = data.schema.task
    assert task.uncertainty(empty.output) is None
    assert list(task.decode(empty.output[:3])) == [f"output_{i}" for i in range(8)]


def test_a_measure_of_the_matrix_of_all_pairs_chooses_the_epoch() -> None:
    data = things(Retrieval(), torch.arange(ROWS) // 4)
    train, val, test = data.split()
    trainer = Trainer(epochs=12, lr=0.02, batch_size=16, progress=False)
    pipeline = trainer.fit(Pipeline(seeded(Embedder, data.schema)), Splits(train, val, test)).eval()
    chosen = max(record["val/nearest_is_same"] for record in trainer.history)
    metric = NearestIsSame()
    metric.update(answer(pipeline, whole(val)).output, cast("Tensor", whole(val).target))
    assert float(metric.compute()) == pytest.approx(chosen)
    assert chosen > 0.5


# re-identification ------------------------------------------------------------------------------------------------------
class Identities(Retrieval):
    """Retrieval whose batches hold ``people`` identities with ``views`` rows each (Hermans et al., 2017)."""

    key = "identities"
    people, views = 4, 4

    def sampler(self, data: Data) -> Order:
        assert data.target is not None
        ids = data.target

        def batches(rows: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
            own = ids[rows]
            drawn = []
            for _ in range(max(1, len(rows) // (self.people * self.views))):
                known = own.unique()
                people = known[torch.randperm(len(known), generator=generator)[: self.people]]
                picked = [(own == one).nonzero().flatten() for one in people]
                places = [at[torch.randint(len(at), (self.views,), generator=generator)] for at in picked]
                drawn.append(rows[torch.cat(places)])
            return drawn

        return batches


def is_a_group(ids: Tensor) -> bool:
    _, counts = ids.unique(return_counts=True)
    return counts.tolist() == [Identities.views] * Identities.people


def test_a_loader_draws_people_and_their_views() -> None:
    data = things(Identities(), torch.arange(ROWS) // 6)
    loader = Loader(data, 16, generator=torch.Generator().manual_seed(0))
    first, second = list(loader), list(loader)
    assert len(loader) == len(first) == len(second) == 6
    assert all(is_a_group(cast("Tensor", batch.target)) for batch in (*first, *second))
    assert not all(torch.equal(a.index, b.index) for a, b in zip(first, second, strict=True))
    in_order = torch.cat([batch.index for batch in Loader(data, 16)])
    assert torch.equal(in_order, torch.arange(ROWS))


def test_positions_of_a_stage_bound_what_a_sampler_takes() -> None:
    data = things(Identities(), torch.arange(ROWS) // 6)
    rows = torch.arange(12, 60)
    drawn = order(rows, 16, torch.Generator().manual_seed(0), data)
    assert count(rows, 16, data) == len(drawn) == 3
    assert bool(torch.isin(torch.cat(drawn), rows).all())

    class Careless(Identities):
        def sampler(self, data: Data) -> Order:
            return lambda rows, size, generator: [torch.arange(len(data))]

    class Idle(Identities):
        def sampler(self, data: Data) -> Order:
            return lambda rows, size, generator: []

    with pytest.raises(ConfigError, match="takes rows of identities that the stage does not have"):
        order(rows, 16, torch.Generator(), things(Careless(), torch.arange(ROWS) // 6))
    with pytest.raises(ConfigError, match="makes no batch, or an empty one, of 48 rows"):
        order(rows, 16, torch.Generator(), things(Idle(), torch.arange(ROWS) // 6))


class Watched(Embedder):
    """Notes the identities of each batch that it is trained on."""

    def __init__(self, schema: Schema) -> None:
        super().__init__(schema)
        self.__dict__["groups"] = []

    def step(self, batch: Batch) -> Step:
        self.__dict__["groups"].append(batch.target)
        return super().step(batch)


def test_a_trainer_draws_people_and_their_views_and_finds_new_people() -> None:
    data = things(Identities(), torch.arange(ROWS) // 6)
    model = seeded(Watched, data.schema)
    pipeline = fitted(model, data)
    groups = model.__dict__["groups"]
    assert len(groups) == 12 * 4
    assert all(map(is_a_group, groups))
    test = data.split()[2]
    metric = NearestIsSame()
    metric.update(answer(pipeline, whole(test)).output, cast("Tensor", whole(test).target))
    assert float(metric.compute()) > 0.5  # of people of whom no row was in training


# a label for each step ----------------------------------------------------------------------------------------------------
class StepHead(nn.Module):
    """Tokens ``[B, T, D]`` -> logits ``[B, C, T]``."""

    def __init__(self, spec: StreamSpec, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.dim, classes)

    def forward(self, stream: Stream) -> Tensor:
        return self.linear(stream.tokens).transpose(1, 2)


class StepLabels(Unnamed):
    """A class for each step: output ``[B, C, T]`` logits, target int64 ``[B, T]``, -1 where a row has no such step."""

    key = "step_labels"
    link: ClassVar[Link] = "softmax"
    outputs = 2
    names = ("silence", "voice")

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.outputs, 12)

    @property
    def prior_shape(self) -> tuple[int, ...]:
        return (self.outputs, 1)

    def head(self, spec: StreamSpec) -> nn.Module:
        return StepHead(spec, self.outputs)

    def loss(self, output: Tensor, batch: Batch, rows: Tensor | None = None) -> Tensor:
        target = self.target(batch)
        steps = target >= 0
        each = F.cross_entropy(output, target, ignore_index=-1, reduction="none").sum(1) / steps.sum(1).clamp(min=1)
        return self.mean(each, batch, rows)

    def metrics(self) -> dict[str, Any]:
        return {"step_accuracy": MulticlassAccuracy(self.outputs, average="micro", ignore_index=-1)}

    def prior(self, train: Data) -> Tensor:
        assert train.target is not None
        counts = torch.bincount(train.target[train.target >= 0], minlength=self.outputs).float() + 1
        return (counts / counts.sum()).log().view(self.prior_shape)


class Aligned(Model):
    """One token a step of each series, averaged over the series that have the step."""

    def __init__(self, schema: Schema, dim: int = 8) -> None:
        with own_encoders({m.name: nn.Linear(int(m.shape[1] or 1), dim) for m in schema.modalities}):
            super().__init__(schema, dim)

    def fuse(self, features: Features) -> Fused:
        streams = list(features.streams.values())
        tokens = torch.stack([s.tokens for s in streams], 1)
        seen = torch.stack([s.mask & features.present[:, i, None] for i, s in enumerate(streams)], 1)
        weight = seen.to(tokens.dtype)[..., None]
        return Fused((tokens * weight).sum(1) / weight.sum(1).clamp(min=1), seen.any(1))


def voices() -> Dataset:
    g = torch.Generator().manual_seed(2)
    lengths = torch.randint(4, 13, (ROWS, 1), generator=g)
    steps = torch.arange(12) < lengths
    voice = torch.rand(ROWS, 12, generator=g) < 0.4
    series = {
        name: (voice[..., None] * sign + 0.4 * torch.randn(ROWS, 12, 3, generator=g)).masked_fill(
            ~steps[..., None], torch.nan
        )
        for name, sign in (("lips", 1.0), ("throat", -1.0))
    }
    target = voice.long().masked_fill(~steps, -1)
    target_present = torch.arange(ROWS) % 5 > 0
    return dataset(
        StepLabels(), tuple(Modality(name, "series", (12, 3)) for name in series), series, target,
        mask=dict.fromkeys(series, steps), target_present=target_present,
    )  # fmt: skip


def test_a_label_for_each_step_is_learned_from_rows_of_different_lengths() -> None:
    data = voices()
    test = data.split()[2]
    pipeline = fitted(seeded(Aligned, data.schema), data)
    batch = whole(test)
    truth = cast("Tensor", batch.target)
    for kept in (("lips", "throat"), ("lips",), ("throat",)):
        output = answer(pipeline, batch.only(*kept)).output
        assert output.shape == (len(test), 2, 12)
        seen = batch.only(*kept).present.any(1)[:, None] & (truth >= 0)
        assert float((output.argmax(1) == truth)[seen].float().mean()) > 0.8
    results = evaluate(pipeline, test, "clean", resamples=5)
    labelled = test.subset(test.target_present)
    truth = cast("Tensor", whole(labelled).target)
    right, steps = answer(pipeline, whole(labelled)).output.argmax(1) == truth, truth >= 0
    assert float(results.table["value"].iloc[0]) == pytest.approx(float(right[steps].float().mean()))


def test_a_step_that_a_row_does_not_have_counts_for_nothing_in_the_loss() -> None:
    task, data = StepLabels(), voices()
    batch = whole(data)
    g = torch.Generator().manual_seed(4)
    output = torch.randn(ROWS, 2, 12, generator=g)
    other = torch.where((cast("Tensor", batch.target) >= 0)[:, None], output, 1e3)
    torch.testing.assert_close(task.loss(output, batch), task.loss(other, batch))
    log_p = output.log_softmax(1)
    rows = []
    for i in cast("Tensor", batch.target_present).nonzero().flatten().tolist():
        own = [(t, c) for t, c in enumerate(cast("Tensor", batch.target)[i].tolist()) if c >= 0]
        rows.append(sum(-float(log_p[i, c, t]) for t, c in own) / len(own))
    assert float(task.loss(output, batch)) == pytest.approx(sum(rows) / len(rows), rel=1e-5)


# restoration --------------------------------------------------------------------------------------------------------------
class Restoration(Unnamed):
    """An input as it was before the view of this step: output ``[B, D]``, the target is the input itself."""

    key = "restoration"
    outputs = 6
    of = "text"

    def head(self, spec: StreamSpec) -> nn.Module:
        return nn.Sequential(Pooled(), nn.Linear(spec.dim, self.outputs))

    def target(self, batch: Batch) -> Tensor:
        return (batch if batch.truth is None else batch.truth).inputs[self.of]

    def loss(self, output: Tensor, batch: Batch, rows: Tensor | None = None) -> Tensor:
        there = (batch if batch.truth is None else batch.truth).present[:, batch.names.index(self.of)]
        each = (output - self.target(batch)).square().mean(1)
        return self.mean(each, batch, there if rows is None else rows & there)

    def metrics(self) -> dict[str, Any]:
        return {"mse": MeanSquaredError()}

    def prior(self, train: Data) -> Tensor:
        assert train.target is not None
        return train.target[train.target_present].mean(0)


class Pooled(nn.Module):
    """The mean over tokens."""

    def forward(self, stream: Stream) -> Tensor:
        return stream.pooled()


class Restorers(Model):
    """Sees any part of what a row has, and says what the text was."""

    def stages(self) -> list[Stage]:
        return [Stage("restore", view="subsets")]


def test_an_input_that_the_view_took_away_is_restored_from_the_others() -> None:
    ids = torch.randint(0, 12, (ROWS,), generator=torch.Generator().manual_seed(0))
    rows = things(Retrieval(), ids, noise=0.1)
    text = whole(rows).inputs["text"]
    data = dataset(Restoration(), rows.schema.modalities, dict(whole(rows).inputs), text)
    pipeline = fitted(seeded(Restorers, data.schema), data, epochs=60)
    test = whole(data.split()[2])
    test = test.rows(test.present.all(1))
    guess = (data.schema.task.prior(data.split()[0]) - test.inputs["text"]).square().mean()
    blind = answer(pipeline, test.only("picture"))
    assert not bool(blind.used[:, 1].any())
    assert float((blind.output - test.inputs["text"]).square().mean()) < 0.3 * float(guess)
    nothing = answer(pipeline, test.only()).output
    torch.testing.assert_close(nothing, data.schema.task.prior(data.split()[0]).expand_as(nothing))
    results = evaluate(pipeline, data.split()[2], "clean", resamples=5)
    assert results.metrics == ["mse"]
    assert results.table["value"].iloc[0] < float(guess)
