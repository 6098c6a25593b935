"""Chains of autoencoders in two forms: each adds to what it is given, or each is given something again.

The third form, in which inputs accumulate and a transition follows, is :class:`kintsugi.layers.imagination.Imaginer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kintsugi.core.errors import ConfigError

Activation = Callable[[], nn.Module]


class Cascaded(NamedTuple):
    """state: behind the last block, ``[..., W]``; codes: of all blocks side by side; out: the last block's own output."""

    state: Tensor
    codes: Tensor
    out: Tensor


class Autoencoder(nn.Module):
    """A perceptron down to a code and back to the width it came from: ``[..., W]`` -> output ``[..., W]`` and code ``[..., C]``.

    Args:
        widths: W, hidden layers, C.
        down, up: activations between the layers of either half.
        code: is the code activated too? output: is the output?
        bias: of every layer. dropout: of the code, in what is decoded.
        back: C, hidden layers, W of the way back; default: widths in reverse.
    """

    def __init__(
        self, widths: Sequence[int], down: Activation = nn.ReLU, up: Activation = nn.ReLU, code: bool = False,
        output: bool = False, bias: bool = True, dropout: float = 0.0, back: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.down = _dense(widths, down, code, bias)
        self.dropout = nn.Dropout(dropout)
        self.up = _dense(back or widths[::-1], up, output, bias)
        self.code_dim = widths[-1]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes as in the class; the code is that of before the dropout."""
        code = self.down(x)
        return self.up(self.dropout(code)), code


def _dense(widths: Sequence[int], activation: Activation, last: bool, bias: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b, bias=bias), activation()]
    return nn.Sequential(*(layers if last else layers[:-1]))


class _Chain(nn.Module):
    def __init__(self, blocks: Iterable[Autoencoder]) -> None:
        super().__init__()
        chain = list(blocks)
        if not chain:
            raise ConfigError("a cascade needs at least one block")
        self.blocks = nn.ModuleList(chain)
        self.code_dim = sum(block.code_dim for block in chain)


class ResidualCascade(_Chain):
    """Every block predicts what is still lacking, and that is added to its own input: ``x_{k+1} = x_k + f_k(x_k)``.

    Tran et al., "Missing modalities imputation via cascaded residual autoencoder", CVPR 2017, and the authors' code
    (tranluan/CRA).

    Args:
        blocks: f_1 .. f_K, with weights of their own.
        residual: False leaves the sum out, ``x_{k+1} = f_k(x_k)``.

    Raises:
        ConfigError: no block.
    """

    def __init__(self, blocks: Iterable[Autoencoder], residual: bool = True) -> None:
        super().__init__(blocks)
        self.residual = residual

    def forward(self, x: Tensor, depth: int | None = None) -> Cascaded:
        """x ``[..., W]`` through the first ``depth`` blocks (default: all)."""
        codes, out = [], x
        for block in self.blocks[:depth]:
            out, code = block(x)
            codes.append(code)
            x = x + out if self.residual else out
        return Cascaded(x, torch.cat(codes, -1), out)


class InjectedCascade(_Chain):
    """Every block is given the one before it and the same vector again, and nothing else: ``o_b = f_b(o_{b-1} + H)``.

    Zuo et al., "Exploiting modality-invariant feature for robust multimodal emotion recognition with missing modalities",
    ICASSP 2023, and the authors' code (ZhuoYulang/IF-MMIN). There is no identity path from a block to the next.

    Raises:
        ConfigError: no block.
    """

    def forward(self, x: Tensor, injected: Tensor) -> Cascaded:
        """x, the first input, and injected, both ``[..., W]``; state and out are the same here."""
        codes, out = [], x
        for block in self.blocks:
            out, code = block(out + injected)
            codes.append(code)
        return Cascaded(out, torch.cat(codes, -1), out)
