"""Translators: one sequence is written anew as another, of another length and width."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kintsugi.core.features import Stream
from kintsugi.layers.positions import sinusoid
from kintsugi.layers.streams import Block, heads_for


# recurrent ---------------------------------------------------------------------------------------------------------
def recurrent(rnn: nn.RNNBase, x: Tensor, mask: Tensor) -> Tensor:
    """States of a batch-first GRU or LSTM over the steps that exist: x ``[B, T, W]``, mask bool ``[B, T]`` -> ``[B, T, H]``.

    A step that does not exist is skipped, at the end as in the middle, and its state is zero; so padding changes nothing.
    """
    if bool((mask.all(1) | ~mask.any(1)).all()):  # nothing to skip within a row
        return torch.where(mask[..., None], rnn(torch.where(mask[..., None], x, 0))[0], 0)
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)  # what exists, to the front
    x = torch.where(mask[..., None], x, 0).gather(1, order[..., None].expand(-1, -1, x.shape[2]))
    lengths = mask.sum(1).clamp(min=1).cpu()
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    states, _ = nn.utils.rnn.pad_packed_sequence(rnn(packed)[0], batch_first=True, total_length=x.shape[1])
    back = order.argsort(dim=1)[..., None].expand(-1, -1, states.shape[2])
    return torch.where(mask[..., None], states.gather(1, back), 0)


class SummedLSTM(nn.Module):
    """A bidirectional LSTM whose two directions are summed: ``[B, T, width] -> [B, T, dim]``, all steps.

    The encoder of Pham et al., "Found in Translation", AAAI 2019 (authors' code: hainow/MCTN).
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(width, dim, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x ``[B, T, width]``, mask bool ``[B, T]`` -> ``[B, T, dim]``, zero where masked."""
        return recurrent(self.rnn, x, mask).unflatten(2, (2, -1)).sum(2)


class FreeDecoder(nn.Module):
    """An LSTM that writes a sequence from the states of an encoder, and is given neither its own output nor the true one.

    Its only input at each step is an average of the states, by additive attention ``v' tanh(W [e_t; h])`` (Bahdanau et al.,
    ICLR 2015); it starts from zero. After Pham et al., AAAI 2019, whose released cell has a score in which the decoder's state
    cancels, so that every step sees the same; here the state decides.

    Args:
        dim: width of the encoder's states and of its own. width: of what is written.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(dim, dim)
        self.of_states, self.of_own = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)
        self.score = nn.Linear(dim, 1, bias=False)
        self.out = nn.Linear(dim, width)

    def forward(self, states: Tensor, mask: Tensor, length: int) -> Tensor:
        """states ``[B, T, dim]``, mask bool ``[B, T]`` -> ``[B, length, width]``."""
        keys = self.of_states(states)
        visible = mask | ~mask.any(1, keepdim=True)  # a row of nothing reads its zeros
        h = c = states.new_zeros(len(states), states.shape[2])
        written = []
        for _ in range(length):
            scores = self.score(torch.tanh(keys + self.of_own(h)[:, None]))[..., 0]
            weights = scores.masked_fill(~visible, -torch.inf).softmax(1)
            h, c = self.cell((weights[..., None] * states).sum(1), (h, c))
            written.append(h)
        return self.out(torch.stack(written, 1))


# one token as the bridge --------------------------------------------------------------------------------------------
def bridge_mask(sources: Sequence[int], target: int) -> Tensor:
    """Who may look at whom in a :class:`BridgeTranslator`: bool ``[T, T]``, rows look at columns, T = all lengths.

    sources: lengths of the sources. target: length of the target part, of which the first token is the bridge. A source sees
    itself and the bridge; the bridge all sources and itself; a step of the target the bridge and the steps up to itself.
    Huan et al., "UniMF", IEEE TMM 2023 (authors' code: gw-zhong/UniMF).
    """
    bridge = sum(sources)
    mask = torch.zeros(bridge + target, bridge + target, dtype=torch.bool)
    start = 0
    for length in sources:
        mask[start : start + length, start : start + length] = True
        start += length
    mask[:, bridge] = True
    mask[bridge, :bridge] = True
    mask[bridge + 1 :, bridge + 1 :] = torch.ones(target - 1, target - 1, dtype=torch.bool).tril()
    return mask


class BridgeTranslator(nn.Module):
    """Any of several sequences into one more, through a single token; it is the first of the target part, step after step.

    Pre-norm blocks over ``[source 1; …; source S; bridge; target steps 1 … T - 1]`` under :func:`bridge_mask`; what the target
    part says is the target's steps 1 … T (Huan et al., "UniMF", IEEE TMM 2023). With one block the steps after the first see
    of the sources nothing, since the bridge that they look at is not filled yet: take two or more.

    Args:
        sources: widths of the S sources. width: of the target. length: most steps of any of them; later ones share a position.
        past: the target has more than one step, so that earlier ones are read.
        dim, depth: width of a token, and number of blocks.
    """

    def __init__(
        self, sources: Sequence[int], width: int, length: int, past: bool, dim: int = 32, depth: int = 2
    ) -> None:  # fmt: skip
        super().__init__()
        self.width = width
        self.embed = nn.ModuleList(nn.Sequential(nn.Linear(w, dim), nn.ReLU()) for w in sources)
        self.embed_past = nn.Sequential(nn.Linear(width, dim), nn.ReLU()) if past else None
        self.bridge = nn.Parameter(torch.randn(len(sources), dim) * 0.02)  # by the number of sources: [Uni], [Bi], …
        self.kind = nn.Parameter(torch.randn(len(sources) + 1, dim) * 0.02)
        self.position = nn.Parameter(torch.randn(length, dim) * 0.02)
        self.blocks = nn.ModuleList(Block(dim, ratio=4) for _ in range(depth))
        self.norm, self.out = nn.LayerNorm(dim), nn.Linear(dim, width)

    def place(self, steps: int) -> Tensor:
        """Positions of the first steps ``[steps, dim]``."""
        return self.position[torch.arange(steps, device=self.position.device).clamp(max=len(self.position) - 1)]

    def forward(self, sources: Sequence[Stream], past: Stream) -> Tensor:
        """The target's steps 1 … T ``[B, T, width]``; sources: S streams; past: its steps 1 … T - 1 ``[B, T - 1, width]``.

        Steps that do not exist, and all those of an absent source, are hidden by the masks of the streams.
        """
        tokens = [embed(s.tokens) + self.place(s.mask.shape[1]) for embed, s in zip(self.embed, sources, strict=True)]
        count = torch.stack([s.mask.any(1) for s in sources]).sum(0).clamp(min=1)
        begin = (self.bridge[count - 1] + self.position[0])[:, None]
        steps = 1 + past.mask.shape[1]
        if steps > 1 and self.embed_past is not None:
            begin = torch.cat([begin, self.embed_past(past.tokens) + self.place(steps)[1:]], 1)
        tokens = [x + kind for x, kind in zip([*tokens, begin], self.kind, strict=True)]
        mask = torch.cat([*(s.mask for s in sources), past.mask.new_ones(len(count), 1), past.mask], 1)
        attend = bridge_mask([s.mask.shape[1] for s in sources], steps).to(mask.device)
        x = torch.cat(tokens, 1)
        for block in self.blocks:
            x = block(x, mask, attend=attend)
        written: Tensor = self.out(self.norm(x[:, -steps:]))
        return written

    def teach(self, sources: Sequence[Stream], truth: Stream) -> Tensor:
        """The steps of the truth ``[B, T, width]``, each from those before it: teacher forcing."""
        return self(sources, Stream(truth.tokens[:, :-1], truth.mask[:, :-1]))

    def generate(self, sources: Sequence[Stream], length: int) -> Tensor:
        """As many steps ``[B, length, width]``, each from those that it wrote before."""
        first = sources[0]
        written = first.tokens.new_zeros(len(first.mask), 0, self.width)
        for _ in range(length):
            past = Stream(written, written.new_ones(written.shape[:2], dtype=torch.bool))
            written = torch.cat([written, self(sources, past)[:, -1:]], 1)
        return written


# encoder and decoder --------------------------------------------------------------------------------------------------
class CrossAttention(nn.Module):
    """Scaled dot-product attention of one sequence on another (Vaswani et al., NeurIPS 2017, section 3.2).

    Args:
        dim: width of the tokens of both.
        heads: must divide ``dim``; None: :func:`~kintsugi.layers.streams.heads_for`.
    """

    def __init__(self, dim: int, heads: int | None = None) -> None:
        super().__init__()
        self.heads = heads_for(dim) if heads is None else heads
        self.query, self.key_value, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """x ``[B, Q, D]``, memory ``[B, T, D]`` finite everywhere, mask bool ``[B, T]`` of the memory -> ``[B, Q, D]``."""
        key, value = self.key_value(memory).chunk(2, -1)
        query, key, value = (y.unflatten(2, (self.heads, -1)).transpose(1, 2) for y in (self.query(x), key, value))
        scores = query @ key.transpose(2, 3) * query.shape[3] ** -0.5
        visible = mask | ~mask.any(1, keepdim=True)  # a row without memory looks at its zeros
        weights = scores.masked_fill(~visible[:, None, None], -torch.inf).softmax(-1)
        out: Tensor = self.out((weights @ value).transpose(1, 2).flatten(2))
        return out


class PostNorm(nn.Module):
    """A layer of a transformer with its norms behind: ``LayerNorm(x + part(x))`` of each part (Vaswani et al., NeurIPS 2017).

    The parts are attention on itself, attention on a memory where ``decodes``, and a perceptron of ``2 dim`` with ReLU.
    """

    def __init__(self, dim: int, decodes: bool = False) -> None:
        super().__init__()
        self.own = CrossAttention(dim)
        self.other = CrossAttention(dim) if decodes else None
        self.feed = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2 + decodes))

    def forward(self, x: Stream, memory: Stream | None = None) -> Stream:
        """Streams of width ``dim``; what the layer says is zero where ``x`` is masked."""
        y = self.norms[0](x.tokens + self.own(x.tokens, x.tokens, x.mask))
        if self.other is not None and memory is not None:
            y = self.norms[1](y + self.other(y, memory.tokens, memory.mask))
        y = self.norms[-1](y + self.feed(y))
        return Stream(torch.where(x.mask[..., None], y, 0), x.mask)


class SequenceCoder(nn.Module):
    """A stack of :class:`PostNorm` layers with sinusoidal positions: an encoder, or a decoder that reads a memory.

    Nothing is causal: the query of a decoder is given whole, and all its steps are written at once.
    """

    def __init__(self, dim: int, depth: int, decodes: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(PostNorm(dim, decodes) for _ in range(depth))

    def forward(self, x: Stream, memory: Stream | None = None) -> Stream:
        """x: a stream of width ``dim``, without positions -> the same shape."""
        place = sinusoid((x.mask.shape[1],), x.tokens.shape[2], x.tokens.device).to(x.tokens.dtype)
        x = Stream(torch.where(x.mask[..., None], x.tokens + place, 0), x.mask)
        for layer in self.layers:
            x = layer(x, memory)
        return x
