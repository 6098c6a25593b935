"""Contrast, matching and masked prediction: the published numbers, and values of numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import Tensor

from kintsugi.core.errors import DataError
from kintsugi.layers.codebook import Codebook
from kintsugi.layers.scale import LearnedScale
from kintsugi.losses.contrastive import drawing_weights, hard_negatives, info_nce, matching, similarities
from kintsugi.losses.masked import masked_cross_entropy, masked_mse

NAN = float("nan")
IMAGE = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], dtype=torch.float64)


def test_the_contrast_has_the_published_number() -> None:
    table = torch.tensor([[0.8, 0.6], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    assert info_nce(similarities(3 * IMAGE, table, 1 / 0.1)).item() == pytest.approx(2.12356342)


@pytest.mark.parametrize(
    ("scale", "anchors", "expected"),
    [(1.0, [1, 1, 0], 0.98723151), (1.0, [1, 1, 1], 1.32203610), (1 / 0.07, [1, 1, 0], 1.64001069)],
)
def test_a_mismatched_pair_is_no_anchor_but_a_negative(scale: float, anchors: list[int], expected: float) -> None:
    text = torch.tensor([[0.8, 0.6], [0.2, 1.0], [1.0, -0.5]], dtype=torch.float64)
    logits = similarities(IMAGE, text, scale)
    assert info_nce(logits, torch.tensor(anchors).bool()).item() == pytest.approx(expected)
    ways = [-np.diag(log_softmax(s, 1))[np.array(anchors) > 0].mean() for s in (logits.numpy(), logits.numpy().T)]
    assert info_nce(logits, torch.tensor(anchors).bool(), 0.3).item() == pytest.approx(0.3 * ways[0] + 0.7 * ways[1])


def test_a_contrast_without_anchors_is_nothing_with_a_gradient() -> None:
    logits = torch.randn(3, 3, requires_grad=True)
    loss = info_nce(logits, torch.zeros(3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_similarities_are_of_the_same_rows() -> None:
    with pytest.raises(DataError, match="same rows"):
        similarities(torch.ones(2, 3), torch.ones(3, 3))


def test_negatives_are_drawn_with_the_published_weights() -> None:
    logits = torch.tensor([[2.0, 1, 0], [0, 1, 2], [1, 1, 1]], dtype=torch.float64)
    there, back = (drawing_weights(s) for s in (logits, logits.T))
    first = [[0, 0.73092062, 0.26907938], [0.11930373, 0, 0.88069627], [0.5, 0.5, 0]]
    second = [[0, 0.26907938, 0.73092062], [0.5, 0, 0.5], [0.11930373, 0.88069627, 0]]
    np.testing.assert_allclose(there / there.sum(1, keepdim=True), first, atol=1e-8)
    np.testing.assert_allclose(back / back.sum(1, keepdim=True), second, atol=1e-8)
    torch.manual_seed(0)
    drawn = torch.stack([torch.stack(hard_negatives(logits)) for _ in range(2000)])  # [N, 2, 3]
    share = torch.nn.functional.one_hot(drawn, 3).double().mean(0)
    np.testing.assert_allclose(share, [first, second], atol=0.04)


def test_what_looks_most_alike_is_nearly_always_drawn_and_no_gradient_passes() -> None:
    logits = torch.zeros(20, 20, requires_grad=True)
    alike = logits + 20 * torch.eye(20).roll(1, 1)
    there, back = hard_negatives(alike)
    places = torch.arange(20)
    assert (there == (places + 1) % 20).sum() >= 19
    assert (back == (places - 1) % 20).sum() >= 19
    assert not drawing_weights(alike.detach()).diagonal().any()
    assert not there.requires_grad
    with pytest.raises(DataError, match="two rows"):
        hard_negatives(logits[:1, :1])


def test_matching_has_the_published_number() -> None:
    logits = torch.tensor([[0, 1], [0.5, 0], [1, -1], [0, 0], [0.2, 0.3], [-1, 1]])
    assert matching(logits, torch.tensor([1, 1, 0, 0, 0, 0]).bool()).item() == pytest.approx(0.82978976)


def test_masked_prediction_has_the_published_numbers() -> None:
    logits = torch.tensor([[2.0, 0, 1], [0, 1, 0], [1, 1, 3]])
    loss = masked_cross_entropy(logits, torch.tensor([0, -1, 1]), torch.tensor([True, False, True]))
    assert loss.item() == pytest.approx(1.32357537)
    category = torch.tensor([[[1.0, 0, 0, 0, 0], [0, 0, 2, 0, 0]], [[0, 1, 0, 0, 1], [0, 0, 0, 1, 0]]])
    masked = torch.tensor([[True, False], [False, True]])
    found = masked_cross_entropy(category, torch.tensor([[0, 3], [1, 4]]), masked, 1e-8)
    assert found.item() == pytest.approx(1.40483240)
    number = torch.tensor([[0.5, 1.0], [0.0, -1.0]])
    true = torch.tensor([[0.2, NAN], [1.0, 0.0]])
    assert masked_mse(number, true, torch.tensor([[True, False], [True, True]])).item() == pytest.approx(0.69666667)


def test_the_logarithm_of_categories_is_bounded_below() -> None:
    logits = torch.tensor([[0.0, 60.0]], dtype=torch.float64)
    loss = masked_cross_entropy(logits, torch.tensor([0]), torch.tensor([True]), 1e-8)
    assert loss.item() == pytest.approx(-math.log(softmax(logits.numpy())[0, 0] + 1e-8))


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_what_is_not_masked_is_not_read(kind: str) -> None:
    x = torch.randn(3, 4, requires_grad=True)

    def loss(mask: Tensor) -> Tensor:
        if kind == "classes":
            return masked_cross_entropy(x, torch.tensor([1, 99, 2]), mask)
        return masked_mse(x, torch.tensor([[1.0], [NAN], [2.0]]).expand(3, 4), mask[:, None].expand(3, 4))

    loss(torch.tensor([True, False, True])).backward()
    assert x.grad is not None
    assert x.grad.any(1).tolist() == [True, False, True]
    nothing = loss(torch.zeros(3, dtype=torch.bool))
    assert nothing.item() == 0
    assert nothing.requires_grad


def test_other_shapes_are_refused() -> None:
    with pytest.raises(DataError, match="other shapes"):
        masked_mse(torch.ones(3, 1), torch.ones(3), torch.ones(3, dtype=torch.bool))
    with pytest.raises(DataError, match="other shapes"):
        masked_cross_entropy(torch.ones(3, 1, 2), torch.ones(3).long(), torch.ones(3, dtype=torch.bool))


def test_the_scale_is_kept_below_a_hundred_and_learns_again_from_there() -> None:
    scale = LearnedScale()
    assert scale.log.item() == pytest.approx(2.6593, abs=1e-4)
    assert scale().item() == pytest.approx(1 / 0.07, rel=1e-5)
    with torch.no_grad():
        scale.log.fill_(9.0)
    value = scale()
    value.backward()
    assert value.item() == pytest.approx(100.002981, rel=1e-5)
    assert scale.log.grad is not None
    assert scale.log.grad.item() == pytest.approx(
        100.003, rel=1e-4
    )  # no gradient passes through the bound, none is cut by it
    with torch.no_grad():
        scale.log.fill_(-1.0)
    assert scale().item() == 1


def test_codes_are_the_nearest_centres() -> None:
    rng = np.random.default_rng(0)
    middles = np.array([[0, 0], [10, 0], [0, 10]])
    x = torch.as_tensor(np.repeat(middles, 50, 0) + rng.normal(0, 0.1, (150, 2))).float()
    book = Codebook(3, 2)
    book.fit(x)
    found = book(x.view(3, 50, 2))
    assert found.shape == (3, 50)
    assert [len(row.unique()) for row in found] == [1, 1, 1]
    assert len(found.unique()) == 3
    np.testing.assert_allclose(book.centres[found[:, 0]], x.view(3, 50, 2).mean(1), atol=1e-4)


def test_fewer_values_than_codes_and_more_than_are_looked_at() -> None:
    book = Codebook(4, 1)
    book.fit(torch.tensor([[1.0], [2.0]]).repeat(9000, 1))
    assert sorted(book.centres.flatten().unique().tolist()) == pytest.approx([1, 2])
    assert book(torch.tensor([[1.0], [2.0]])).unique().numel() == 2
    assert int(book(torch.tensor([[1.0], [2.0]])).max()) <= 1
