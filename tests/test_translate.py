"""Translators of sequences and their parts, against torch's own layers, numpy and the masks of the authors' code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kintsugi.core import Modality, Stream
from kintsugi.core.encoder import own_encoders
from kintsugi.core.errors import ConfigError
from kintsugi.encoders.frames import Frames, FrameSpec, fitted, frame_encoder, frame_spec
from kintsugi.layers.streams import Attention, Block
from kintsugi.layers.translate import (
    BridgeTranslator,
    CrossAttention,
    FreeDecoder,
    PostNorm,
    SequenceCoder,
    SummedLSTM,
    bridge_mask,
    recurrent,
)
from kintsugi.losses.distance import mae

NAN = float("nan")


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def ones(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.bool)


def stream(*shape: int) -> Stream:
    return Stream(torch.randn(*shape, dtype=torch.float64), ones(*shape[:2]))


# who may look at whom -------------------------------------------------------------------------------------------------
def test_attention_under_a_mask_of_pairs_is_that_of_torch() -> None:
    with seeded():
        own, x = Attention(8, 2), torch.randn(3, 5, 8)
        attend = torch.rand(5, 5) < 0.5
    attend |= torch.eye(5, dtype=torch.bool)
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = own.qkv.weight.data, own.qkv.bias.data
    theirs.out_proj.load_state_dict(own.out.state_dict())
    expected = theirs(x, x, x, attn_mask=~attend)[0]
    torch.testing.assert_close(own(x, ones(3, 5), attend=attend), expected)
    torch.testing.assert_close(own(x, ones(3, 5), attend=attend.expand(3, 5, 5)), expected)
    hidden = ones(3, 5)
    hidden[1, 2] = False
    each = attend & hidden[:, None]
    torch.testing.assert_close(own(x, hidden, attend=attend), own(x, ones(3, 5), attend=each))


def test_everything_allowed_is_no_mask_a_prefix_stays_visible_and_nothing_allowed_is_finite() -> None:
    with seeded():
        block, x = Block(8), torch.randn(2, 4, 8)
        prefix = (torch.randn(2, 3, 8), torch.randn(2, 3, 8))
    torch.testing.assert_close(block(x, ones(2, 4), prefix, ones(4, 4)), block(x, ones(2, 4), prefix))
    nothing = torch.zeros(4, 4, dtype=torch.bool)
    out = block.attention(x, ones(2, 4), prefix, nothing)
    assert torch.equal(out, out[:, :1].expand_as(out)) is False  # each still asks the prefix with its own query
    changed = block.attention(torch.cat([x[:, :3], x[:, 3:] + 1], 1), ones(2, 4), prefix, nothing)
    assert torch.equal(changed[:, :3], out[:, :3])
    assert block(x, ones(2, 4), attend=nothing).isfinite().all()


def test_the_bridge_mask_is_that_of_the_authors_code() -> None:
    assert bridge_mask([2], 3).int().tolist() == [
        [1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 1, 1],
    ]
    assert bridge_mask([1, 2], 2).int().tolist() == [
        [1, 0, 0, 1, 0],
        [0, 1, 1, 1, 0],
        [0, 1, 1, 1, 0],
        [1, 1, 1, 1, 0],
        [0, 0, 0, 1, 1],
    ]


# recurrent ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("cell", [nn.GRU, nn.LSTM])
def test_states_are_those_of_the_steps_that_exist(cell: type[nn.GRU] | type[nn.LSTM]) -> None:
    with seeded():
        rnn = cell(3, 4, batch_first=True, bidirectional=True)
        x = torch.randn(4, 5, 3)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]]) > 0
    x = torch.where(mask[..., None], x, NAN)
    states = recurrent(rnn, x, mask)
    assert states.shape == (4, 5, 8)
    for row in range(3):
        torch.testing.assert_close(states[row, mask[row]], rnn(x[row, mask[row]][None])[0][0])
    assert not states[~mask].any()
    assert recurrent(rnn, x[:0], mask[:0]).shape == (0, 5, 8)
    states.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in rnn.parameters())


def test_directions_are_summed() -> None:
    with seeded():
        encoder, x = SummedLSTM(3, 4), torch.randn(2, 5, 3)
    both = encoder.rnn(x)[0]
    torch.testing.assert_close(encoder(x, ones(2, 5)), both[..., :4] + both[..., 4:])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def test_the_free_decoder_is_that_of_numpy() -> None:
    with seeded():
        decoder, states = FreeDecoder(3, 2).double(), torch.randn(2, 4, 3, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]) > 0
    written = decoder(torch.where(mask[..., None], states, 0), mask, 3)
    assert written.shape == (2, 3, 2)
    w = {name: p.detach().numpy() for name, p in decoder.named_parameters()}
    for row in range(2):
        e = states[row, mask[row]].numpy()
        h = c = np.zeros(3)
        for step in range(3):
            scores = (
                np.tanh(e @ w["of_states.weight"].T + w["of_states.bias"] + w["of_own.weight"] @ h)
                @ w["score.weight"][0]
            )
            share = np.exp(scores) / np.exp(scores).sum()
            gates = w["cell.weight_ih"] @ (share @ e) + w["cell.bias_ih"] + w["cell.weight_hh"] @ h + w["cell.bias_hh"]
            i, f, g, o = np.split(gates, 4)
            c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
            h = _sigmoid(o) * np.tanh(c)
            out = w["out.weight"] @ h + w["out.bias"]
            assert written[row, step].tolist() == pytest.approx(out.tolist(), abs=1e-12)


def test_a_row_without_states_is_decoded_from_zeros() -> None:
    decoder = FreeDecoder(3, 2)
    states = torch.zeros(1, 4, 3)
    nothing = decoder(states, torch.zeros(1, 4, dtype=torch.bool), 2)
    torch.testing.assert_close(nothing, decoder(states, ones(1, 4), 2))


# one token as the bridge ----------------------------------------------------------------------------------------------
def translator(depth: int) -> BridgeTranslator:
    with seeded():
        made = BridgeTranslator([3, 2], 4, 6, True, 8, depth).double()
        for p in made.parameters():
            p.data += 0.1 * torch.randn_like(p)
    return made


def test_a_step_is_written_from_those_before_it_alone() -> None:
    with seeded(1):
        sources, truth = [stream(2, 3, 3), stream(2, 5, 2)], stream(2, 6, 4)
    model = translator(2)
    written = model.teach(sources, truth)
    assert written.shape == (2, 6, 4)
    for t in range(6):
        other = Stream(truth.tokens.clone(), truth.mask)
        other.tokens[:, t:] += 1
        again = model.teach(sources, other)
        assert torch.equal(again[:, : t + 1], written[:, : t + 1])
        if t < 5:
            assert (again[:, t + 1] != written[:, t + 1]).any(1).all()


@pytest.mark.parametrize(("depth", "reached"), [(1, 1), (2, 6)])
def test_the_first_token_is_the_only_bridge(depth: int, reached: int) -> None:
    """With one block the sources change the first step alone, with two all of them."""
    with seeded(1):
        sources, truth = [stream(2, 3, 3), stream(2, 5, 2)], stream(2, 6, 4)
    model = translator(depth)
    moved = [sources[0], Stream(sources[1].tokens + 1, sources[1].mask)]
    changed = (model.teach(sources, truth) != model.teach(moved, truth)).any(2)
    assert changed.int().tolist() == [[1] * reached + [0] * (6 - reached)] * 2


def test_steps_are_generated_each_from_those_that_were_written() -> None:
    with seeded(1):
        sources = [stream(2, 3, 3), stream(2, 5, 2)]
    model = translator(2)
    written = model.generate(sources, 6)
    assert written.shape == (2, 6, 4)
    torch.testing.assert_close(model.teach(sources, Stream(written, ones(2, 6))), written)
    torch.testing.assert_close(model.generate(sources, 3), written[:, :3])
    assert model.generate(sources, 9).isfinite().all()  # positions beyond the table are those of its last row


def test_absent_sources_are_not_read_and_their_number_chooses_the_bridge() -> None:
    with seeded(1):
        one, two, truth = stream(2, 3, 3), stream(2, 5, 2), stream(2, 6, 4)
    model = translator(2)
    absent = Stream(two.tokens.new_full((2, 5, 2), NAN), ~two.mask)
    with_other = model.teach([one, Stream(torch.zeros_like(two.tokens), ~two.mask)], truth)
    torch.testing.assert_close(model.teach([one, absent], truth), with_other)
    before = model.teach([one, two], truth)
    model.bridge.data[0] += 1
    assert torch.equal(model.teach([one, two], truth), before)
    assert not torch.equal(model.teach([one, absent], truth), with_other)


def test_a_target_of_one_step_has_nothing_before_it() -> None:
    model = BridgeTranslator([3], 4, 6, False, 8)
    assert not [name for name, _ in model.named_parameters() if name.startswith("embed_past")]
    source = Stream(torch.randn(2, 6, 3), ones(2, 6))
    truth = Stream(torch.randn(2, 1, 4), ones(2, 1))
    torch.testing.assert_close(model.teach([source], truth), model.generate([source], 1))


# encoder and decoder --------------------------------------------------------------------------------------------------
def _as_torch(own: CrossAttention, theirs: nn.MultiheadAttention) -> None:
    theirs.in_proj_weight.data = torch.cat([own.query.weight, own.key_value.weight]).detach()
    theirs.in_proj_bias.data = torch.cat([own.query.bias, own.key_value.bias]).detach()
    theirs.out_proj.load_state_dict(own.out.state_dict())


def _layer(own: PostNorm) -> nn.TransformerDecoderLayer | nn.TransformerEncoderLayer:
    kind = nn.TransformerEncoderLayer if own.other is None else nn.TransformerDecoderLayer
    theirs = kind(8, 4, 16, 0.0, batch_first=True).train()
    _as_torch(own.own, theirs.self_attn)
    if own.other is not None:
        assert isinstance(theirs, nn.TransformerDecoderLayer)
        _as_torch(own.other, theirs.multihead_attn)
    for mine, yours in zip((own.feed[0], own.feed[2]), (theirs.linear1, theirs.linear2), strict=True):
        yours.load_state_dict(mine.state_dict())
    for i, norm in enumerate(own.norms):
        norm.weight.data = torch.randn(8)
        getattr(theirs, f"norm{i + 1}").load_state_dict(norm.state_dict())
    return theirs


def test_layers_are_those_of_torch() -> None:
    with seeded():
        x, memory = torch.randn(3, 5, 8), torch.randn(3, 4, 8)
        mask, known = torch.rand(3, 5) < 0.6, torch.rand(3, 4) < 0.6
        mask[:, 0] = known[:, 0] = True
        encodes, decodes = PostNorm(8), PostNorm(8, decodes=True)
        encoder, decoder = _layer(encodes), _layer(decodes)
    here = mask[..., None]
    expected = encoder(x, src_key_padding_mask=~mask)
    torch.testing.assert_close(encodes(Stream(x, mask)).tokens, torch.where(here, expected, 0))
    expected = decoder(x, memory, tgt_key_padding_mask=~mask, memory_key_padding_mask=~known)
    own = decodes(Stream(x, mask), Stream(memory, known)).tokens
    torch.testing.assert_close(own, torch.where(here, expected, 0))


def test_stacks_read_positions_and_nothing_that_is_masked() -> None:
    with seeded():
        coder, x = SequenceCoder(8, 2, decodes=True), torch.randn(2, 5, 8)
        memory = Stream(torch.randn(2, 3, 8), ones(2, 3))
    mask = ones(2, 5)
    mask[1, 3:] = False
    out = coder(Stream(torch.where(mask[..., None], x, NAN), mask), memory).tokens
    assert out.isfinite().all()
    torch.testing.assert_close(out[1, :3], coder(Stream(x[1:, :3], ones(1, 3)), memory_of(memory, 1)).tokens[0])
    alike = coder(Stream(torch.zeros(2, 5, 8), ones(2, 5)), memory).tokens
    assert (alike[:, 0] - alike[:, 1]).abs().max() > 1e-2  # positions tell equal tokens apart
    none = Stream(memory.tokens, ~memory.mask)
    assert coder(Stream(x, ones(2, 5)), none).tokens.isfinite().all()


def memory_of(memory: Stream, row: int) -> Stream:
    return memory.rows(torch.tensor([row]))


# the error ------------------------------------------------------------------------------------------------------------
def test_the_mean_absolute_error_has_the_published_number() -> None:
    y = torch.tensor([[[1, 2], [0.5, -1], [4, 4]]], requires_grad=True)
    x = torch.tensor([[[0.5, 2.5], [1, 1], [NAN, NAN]]])
    error = mae(y, x, torch.tensor([[True, True, False]]))
    assert error.item() == pytest.approx(0.875)
    error.backward()
    assert y.grad is not None
    assert y.grad.tolist() == [[[0.25, -0.25], [-0.25, -0.25], [0, 0]]]
    nothing = mae(y, x, torch.zeros(1, 3, dtype=torch.bool))
    assert nothing.item() == 0
    assert nothing.requires_grad
    with pytest.raises(ValueError, match="different shapes"):
        mae(torch.zeros(3, 1), torch.zeros(3))


# sequences of modalities ----------------------------------------------------------------------------------------------
def test_series_are_averaged_over_windows_and_vectors_are_one_step() -> None:
    x = torch.arange(40.0).view(1, 20, 2)
    mask = ones(1, 20)
    mask[0, 1] = False
    x[0, 1] = NAN
    made = Frames(Modality("m", "series", (20, 2)))(x, mask)
    assert made.tokens.shape == (1, 10, 2)  # of 20 steps, at most 16
    assert made.tokens[0, 0].tolist() == [0, 1]
    assert made.tokens[0, 1].tolist() == [5, 6]
    assert Frames(Modality("m", "series", (9, 2)))(torch.ones(1, 9, 2)).tokens.shape == (1, 9, 2)
    vector = Frames(Modality("m", "vector", (3,)))(torch.tensor([[1.0, NAN, 3]]), torch.tensor([[True, False, True]]))
    assert vector.tokens.tolist() == [[[1, 0, 3]]]
    for wrong in (Modality("m", "image", (1, 8, 8)), Modality("m", "series", (9, None))):
        with pytest.raises(ConfigError, match="modality 'm'"):
            Frames(wrong)


@pytest.mark.parametrize(
    ("modality", "expected"),
    [
        (Modality("m", "series", (20, 2)), FrameSpec(10, 2)),
        (Modality("m", "series", (None, 2)), FrameSpec(16, 2)),
        (Modality("m", "vector", (5,)), FrameSpec(1, 5)),
        (Modality("m", "image", (1, 8, 8)), FrameSpec(16, 8)),
    ],
)
def test_the_size_of_a_sequence_is_known_before_any_row(modality: Modality, expected: FrameSpec) -> None:
    encoder = frame_encoder(modality, 8)
    assert frame_spec(modality, encoder, 8) == expected
    assert (modality.kind == "image") != isinstance(encoder, Frames)


def test_a_users_encoder_is_used_for_series_and_vectors_as_well() -> None:
    modality = Modality("m", "vector", (5,))
    with own_encoders({"m": nn.Linear(5, 6)}):
        encoder = frame_encoder(modality, 8)
    assert not isinstance(encoder, Frames)
    assert frame_spec(modality, encoder, 8) == FrameSpec(1, 8)


def test_sequences_are_cut_or_followed_by_nothing() -> None:
    x = Stream(torch.ones(1, 3, 2), ones(1, 3))
    longer = fitted(x, 5)
    assert longer.mask.tolist() == [[True] * 3 + [False] * 2]
    assert longer.tokens[0, :, 0].tolist() == [1, 1, 1, 0, 0]
    assert fitted(x, 2).tokens.shape == (1, 2, 2)
