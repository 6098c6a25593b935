"""Floating-point operations of a call: torch's counter, and formulas for what it takes for free.

Counted are matrix products, convolutions and Fourier transforms, a multiplication and an addition as two; everything
elementwise (activations, norms, softmax, pooling) counts as nothing, as in ``torch.utils.flop_counter``. On a CPU that
counter (torch 2.13) gives zero for fused attention, for the fast path of ``TransformerEncoderLayer`` and
``MultiheadAttention`` in evaluation, for ``nn.LSTM``, ``nn.Bilinear`` and products with a vector: see ``FORMULAS``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Operations that do more than elementwise work, by name, wherever no formula is known for them.
HEAVY = re.compile(
    r"mm$|mm_|convol|conv\d|conv_|attention|rnn|_gru|lstm(?!_cell)|pdist|triangular|cholesky|geqrf|ormqr"
    r"|linalg_(?!check|vector_norm|cross)"
)
OURS = ("aten", "prim", "prims")


def count_flops(call: Callable[[], object]) -> tuple[int, tuple[str, ...]]:
    """Floating-point operations of one call, which is made, and the operations that no formula covers.

    Args:
        call: what to count; its result is dropped. Gradients and the state of random generators are its own business.

    Returns:
        operations of the whole call, and the sorted names of those that count as zero although they do more than
        elementwise work (decompositions of matrices, quantised layers, operators from outside torch): where there are
        any, the figure is a lower bound.
    """
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False, custom_mapping=dict(FORMULAS))
    seen = _Seen()
    with seen, counter:  # the counter is inner: what it can take apart, only the pieces of it are seen
        call()
    unknown = {str(op) for op in seen.operations if op not in counter.flop_registry and _heavy(op)}
    return int(counter.get_total_flops()), tuple(sorted(unknown))


class _Seen(TorchDispatchMode):
    """Remembers which operations were run."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.operations: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations.add(getattr(func, "_overloadpacket", func))
        return func(*args, **(kwargs or {}))


def _heavy(operation: Any) -> bool:
    space, _, name = str(operation).partition(".")
    return space not in OURS or HEAVY.search(name) is not None


# formulas: each gets the arguments of the operation and ``out_val``, its result ------------------------------------


def _raw(formula: Callable[..., int]) -> Callable[..., int]:
    formula._get_raw = True  # type: ignore[attr-defined]  # the counter hands over tensors in place of shapes
    return formula


@_raw
def _attention(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **more: Any) -> int:
    """``softmax(QK')V``: query ``[..., Tq, D]``, key ``[..., Tk, D]``, value ``[..., Tk, E]``; two products.

    Heads are those of the query: with grouped heads (GQA) a key is multiplied once for each of its queries.
    """
    batch = math.prod(query.shape[:-2])
    return 2 * batch * query.shape[-2] * key.shape[-2] * (query.shape[-1] + value.shape[-1])


@_raw
def _multi_head(query: Tensor, key: Tensor, value: Tensor, dim: int, *rest: Any, **more: Any) -> int:
    """Projections of query, key, value and output, ``dim x dim`` each, around attention of width ``dim``."""
    asked, offered = _lengths(query), _lengths(key)
    projected = 2 * sum(asked) + sum(offered) + sum(_lengths(value))
    return 2 * projected * dim**2 + 4 * dim * sum(q * k for q, k in zip(asked, offered, strict=True))


@_raw
def _encoder_layer(src: Tensor, dim: int, heads: int, *rest: Any, **more: Any) -> int:
    """Self-attention as in :func:`_multi_head` and two linear layers over each step that exists.

    A padded batch comes as a nested tensor, and then each row counts with its own length.
    """
    steps, hidden = _lengths(src), rest[12].shape[0]
    return 2 * sum(steps) * (4 * dim**2 + 2 * dim * hidden) + 4 * dim * sum(n * n for n in steps)


def _lengths(x: Tensor) -> list[int]:
    """Number of steps of each row of ``[B, T, D]``, nested or not."""
    if x.is_nested:
        return [int(n) for n in x._nested_tensor_size()[:, 0]]
    return [x.shape[1]] * x.shape[0]


@_raw
def _mkldnn_rnn(x: Tensor, inner: Tensor, recurrent: Tensor, *rest: Any, **more: Any) -> int:
    """One layer in one direction: each of the ``T * B`` steps meets both matrices, ``[gates * H, I]``, ``[gates * H, H]``."""
    return 2 * math.prod(x.shape[:-1]) * (inner.numel() + recurrent.numel())


@_raw
def _cudnn_rnn(x: Tensor, weights: Sequence[Tensor], *rest: Any, **more: Any) -> int:
    """All layers and directions: each step (``[T, B, I]``, or packed ``[steps, I]``) meets every matrix once."""
    return 2 * math.prod(x.shape[:-1]) * sum(w.numel() for w in weights if w.ndim == 2)


@_raw
def _bilinear(left: Tensor, weight: Tensor, right: Tensor, *rest: Any, **more: Any) -> int:
    """``x' W y`` for each output: left ``[B, I]``, weight ``[O, I, J]``, right ``[B, J]``; first ``x' W``, then ``y``."""
    rows, (outputs, first, second) = left.shape[0], weight.shape
    return 2 * rows * outputs * (first * second + second)


@_raw
def _matrix_vector(matrix: Tensor, vector: Tensor, *rest: Any, **more: Any) -> int:
    """Matrix ``[M, N]`` or vector ``[N]``, times a vector ``[N]``."""
    return 2 * matrix.numel()


@_raw
def _added_matrix_vector(bias: Tensor, matrix: Tensor, vector: Tensor, *rest: Any, **more: Any) -> int:
    return 2 * matrix.numel()


@_raw
def _added_products(bias: Tensor, left: Tensor, right: Tensor, *rest: Any, **more: Any) -> int:
    """Left ``[B, M, K]``, right ``[B, K, N]``."""
    return 2 * left.numel() * right.shape[-1]


@_raw
def _distances(left: Tensor, right: Tensor, *rest: Any, **more: Any) -> int:
    """Left ``[..., P, D]``, right ``[..., R, D]``: counted as the matrix product of the two."""
    return 2 * math.prod(more["out_val"].shape) * left.shape[-1]


def _fourier(real: bool) -> Callable[..., int]:
    """``5 N log2 N`` for a complex transform of N points, half of it for a real one.

    The convention of the FFTW benchmarks: Frigo and Johnson, "The design and implementation of FFTW3", Proceedings of
    the IEEE 2005, section V.
    """

    @_raw
    def formula(x: Tensor, axes: Sequence[int], *rest: Any, **more: Any) -> int:
        whole = x if not real or not x.is_complex() else more["out_val"]  # back to real: the output is the longer one
        points = math.prod(whole.shape[axis] for axis in axes)
        transforms = whole.numel() // max(points, 1)
        return round((2.5 if real else 5.0) * transforms * points * math.log2(max(points, 1)))

    return formula


_aten = torch.ops.aten
FORMULAS: Mapping[Any, Callable[..., int]] = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_fused_attention_overrideable: _attention,
    _aten._native_multi_head_attention: _multi_head,
    _aten._transformer_encoder_layer_fwd: _encoder_layer,
    _aten.mkldnn_rnn_layer: _mkldnn_rnn,
    _aten._cudnn_rnn: _cudnn_rnn,
    _aten._trilinear: _bilinear,
    _aten.mv: _matrix_vector,
    _aten.dot: _matrix_vector,
    _aten.vdot: _matrix_vector,
    _aten.addmv: _added_matrix_vector,
    _aten.addbmm: _added_products,
    _aten._cdist_forward: _distances,
    _aten._euclidean_dist: _distances,
    _aten._fft_r2c: _fourier(real=True),
    _aten._fft_c2r: _fourier(real=True),
    _aten._fft_c2c: _fourier(real=False),
}
"""Operation -> its formula, for what ``torch.utils.flop_counter`` does not know."""
