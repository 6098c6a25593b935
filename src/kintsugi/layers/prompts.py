"""Prompts that a row's missing pattern picks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, combinations, cycle, islice

import torch
from torch import Tensor, nn

from kintsugi.core.errors import ConfigError


class CasePrompts(nn.Module):
    """One prompt for each of the ``2^M - 1`` patterns of present modalities and each prompted layer.

    A prompt starts at 0, but for tokens of ones that tell the cases apart. Lee et al., "Multimodal prompting with
    missing modalities for visual recognition", CVPR 2023, in the authors' code: token 0 where text and image are there,
    token 1 where the image lacks, token 2 where the text does; a prompt of attention, whose halves go before the keys
    and before the values, has a second such token at the same place of its second half.

    For any number of modalities the cases are put in an order: complete first, then the patterns by the binary number
    whose lowest bit is the first modality (with text first: text alone, image alone). Case i has ones in the i-th set of
    tokens: single tokens first, as in the authors' code, then pairs, then triples. Cases of which there are more than
    sets of tokens start over, and alike.

    Args:
        modalities: M.
        layers: how many get a prompt.
        length: tokens of a prompt.
        dim: width of a token.
        attention: the prompt's halves go before keys and values, so both have tokens of ones; length must be even.

    Raises:
        ConfigError: a prompt of attention of odd length.
    """

    def __init__(self, modalities: int, layers: int, length: int, dim: int, attention: bool = False) -> None:
        super().__init__()
        if attention and length % 2:
            raise ConfigError(f"a prompt of attention is split in halves; its length must be even, not {length}")
        cases = 2**modalities - 1
        start = torch.zeros(cases, layers, length, dim)
        room = length // 2 if attention else length
        for order, tokens in enumerate(islice(cycle(_token_sets(room, cases)), cases)):
            case = (order - 1) % cases  # the complete pattern is the last case and the first in this order
            for token in tokens:
                start[case, :, [token, room + token] if attention else token] = 1
        self.table = nn.Parameter(start)
        self.register_buffer("powers", 2 ** torch.arange(modalities), persistent=False)

    def case(self, present: Tensor) -> Tensor:
        """Bool ``[B, M]`` -> int64 ``[B]``: 0 … 2^M - 2; a row with nothing reads case 0 and is answered by the prior."""
        code: Tensor = (present * self.get_buffer("powers")).sum(1) - 1
        return code.clamp(min=0)

    def forward(self, present: Tensor) -> list[Tensor]:
        """One prompt ``[B, length, dim]`` a layer."""
        return list(self.table[self.case(present)].unbind(1))


def _token_sets(tokens: int, at_most: int) -> list[tuple[int, ...]]:
    """Sets of tokens that are not empty, smaller ones first."""
    sets: Iterator[tuple[int, ...]] = chain.from_iterable(
        combinations(range(tokens), size) for size in range(1, tokens + 1)
    )
    return list(islice(sets, at_most))
