"""Transformers over token streams with holes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from kintsugi.core.errors import ConfigError

Prefix = tuple[Tensor, Tensor]


def heads_for(dim: int) -> int:
    """Number of attention heads: the largest of 4, 2, 1 that divides the width."""
    return next(heads for heads in (4, 2, 1) if dim % heads == 0)


class Attention(nn.Module):
    """Scaled dot-product self-attention (Vaswani et al., NeurIPS 2017, section 3.2) that looks at visible tokens only.

    Args:
        dim: width of a token.
        heads: must divide ``dim``; None: :func:`heads_for`.
    """

    def __init__(self, dim: int, heads: int | None = None) -> None:
        super().__init__()
        self.heads = heads_for(dim) if heads is None else heads
        if dim % self.heads:
            raise ConfigError(f"{self.heads} attention heads do not divide the width {dim}")
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, mask: Tensor, prefix: Prefix | None = None, attend: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        """x ``[B, T, D]`` finite everywhere, mask bool ``[B, T]`` -> ``[B, T, D]``.

        prefix: keys and values ``[B, P, D]`` each, put before the projected ones and always visible: prefix tuning
        (Li and Liang, ACL 2021), in the form of Lee et al., "Multimodal prompting with missing modalities for visual
        recognition", CVPR 2023.
        attend: bool ``[T, T]`` or ``[B, T, T]``: which tokens (columns) each token (row) may look at, where they are visible;
        a token that may look at nothing looks at everything, and its output means nothing.
        """
        query, key, value = self.qkv(x).chunk(3, -1)
        if prefix is not None:
            key = torch.cat([prefix[0].to(key.dtype), key], 1)
            value = torch.cat([prefix[1].to(value.dtype), value], 1)
            mask = torch.cat([mask.new_ones(len(mask), prefix[0].shape[1]), mask], 1)
        else:  # softmax over nothing is NaN: a row without tokens looks at its zeros, and its output is discarded
            mask = mask | ~mask.any(1, keepdim=True)
        # spelled out: the fused kernels have no second derivative, which meta-learning and gradient penalties need
        scores = self._split(query) @ self._split(key).transpose(2, 3) * (x.shape[2] // self.heads) ** -0.5
        visible = mask[:, None, None]
        if attend is not None:
            attend = functional.pad(attend, (key.shape[1] - x.shape[1], 0), value=True)  # a prefix is seen by all
            visible = visible & (attend if attend.ndim == 2 else attend[:, None])
            visible = visible | ~visible.any(-1, keepdim=True)
        weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
        out: Tensor = self.out((weights @ self._split(value)).transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(len(x), x.shape[1], self.heads, x.shape[2] // self.heads).transpose(1, 2)  # -1 fails on no rows


class Block(nn.Module):
    """Pre-norm transformer block: ``x + attention(LN x)``, then ``x + mlp(LN x)`` (Xiong et al., ICML 2020, figure 1b).

    Args:
        dim: width of a token.
        heads: must divide ``dim``; None: :func:`heads_for`.
        ratio: hidden width of the MLP in units of ``dim``.
    """

    def __init__(self, dim: int, heads: int | None = None, ratio: float = 2) -> None:
        super().__init__()
        hidden = int(dim * ratio)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(
        self, x: Tensor, mask: Tensor, prefix: Prefix | None = None, attend: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        """x ``[B, T, D]``, mask bool ``[B, T]`` -> the same, zero where masked; prefix, attend: see :class:`Attention`."""
        visible = mask[..., None]
        x = torch.where(visible, x, 0)  # a weight of zero does not stop NaN
        x = x + self.attention(self.norm1(x), mask, prefix, attend)
        x = x + self.mlp(self.norm2(x))
        return torch.where(visible, x, 0)


class SingleStream(nn.Module):
    """One small transformer over the tokens of all modalities, with places for prompts.

    After ViLT (Kim et al., ICML 2021): a CLS token, a learned embedding for each kind of token (here: modality),
    pre-norm blocks, and a pooler ``tanh(linear(CLS))``. Positions within a modality are the business of its encoder.
    Each modality has a learned token for "absent", for backbones that expect every modality to be there.

    Args:
        dim: width of a token.
        depth: number of blocks; they are addressable as ``blocks[i]``.
        kinds: number of modalities.
    """

    def __init__(self, dim: int, depth: int, kinds: int) -> None:
        super().__init__()
        self.dim, self.kinds = dim, kinds
        self.cls = nn.Parameter(torch.randn(dim) * 0.02)
        self.kind = nn.Parameter(torch.randn(kinds, dim) * 0.02)
        self.absent = nn.Parameter(torch.randn(kinds, dim) * 0.02)
        self.blocks = nn.ModuleList(Block(dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.pooler = nn.Linear(dim, dim)

    def embed(self, tokens: Tensor, mask: Tensor, kinds: Tensor, show_absent: bool = False) -> tuple[Tensor, Tensor]:
        """The sequence that the first block gets: ``[B, 1 + T, D]`` with CLS in front, and its mask.

        tokens ``[B, T, D]``, mask bool ``[B, T]``, kinds int ``[T]`` (the modality of each position). With
        ``show_absent``, a modality without a visible token shows its "absent" token, in place of its first one.
        """
        stand_in = self._stand_in(mask, kinds) & show_absent
        # selected even when nothing is absent, so that the parameter always has a gradient (zero then)
        tokens = torch.where(stand_in[..., None], self.absent[kinds].to(tokens.dtype), tokens)
        mask = mask | stand_in
        tokens = torch.where(mask[..., None], tokens + self.kind[kinds], 0)
        cls = self.cls.to(tokens.dtype).expand(len(tokens), 1, -1)
        return torch.cat([cls, tokens], 1), torch.cat([mask.new_ones(len(mask), 1), mask], 1)

    def _stand_in(self, mask: Tensor, kinds: Tensor) -> Tensor:
        """Bool ``[B, T]``: the first position of each modality of which a row shows nothing."""
        own = kinds == torch.arange(self.kinds, device=kinds.device)[:, None]
        first = (own & (own.cumsum(1) == 1)).any(0)
        seen = (mask[:, None] & own).any(2)
        return ~seen[:, kinds] & first

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor,
        kinds: Tensor,
        prompts: Sequence[Tensor] = (),
        attention_prompts: Sequence[Prefix] = (),
        show_absent: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Summary ``[B, D]`` and all tokens ``[B, T', D]``; tokens, mask, kinds, show_absent: see :meth:`embed`.

        prompts: ``[B, P, D]`` each; ``prompts[i]`` goes in front of the sequence before block i and stays in it
        (input-level prompts of Lee et al., CVPR 2023), so T' = T + 1 + the sum of all P: prompts, latest first, then
        CLS, then the tokens as given, ``[:, -T:]``. attention_prompts: keys and values ``[B, P, D]`` of block i, see
        :class:`Attention`; they leave the length alone.
        """
        for name, given in (("prompts", prompts), ("attention_prompts", attention_prompts)):
            if len(given) > len(self.blocks):
                raise ConfigError(f"{len(given)} {name} for {len(self.blocks)} blocks; give at most one a block")
        length = tokens.shape[1]
        x, mask = self.embed(tokens, mask, kinds, show_absent)
        for i, block in enumerate(self.blocks):
            if i < len(prompts):
                x = torch.cat([prompts[i].to(x.dtype), x], 1)
                mask = torch.cat([mask.new_ones(len(mask), prompts[i].shape[1]), mask], 1)
            x = block(x, mask, attention_prompts[i] if i < len(attention_prompts) else None)
        x = torch.where(mask[..., None], self.norm(x), 0)
        return torch.tanh(self.pooler(x[:, -length - 1])), x
