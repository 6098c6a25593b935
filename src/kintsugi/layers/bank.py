"""Banks: what a method keeps of rows that it has seen, to be looked up when it answers for others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kintsugi.core.errors import ConfigError, DataError
from kintsugi.layers.distance import euclidean


class Neighbours(NamedTuple):
    """The nearest stored rows of each query, nearest first; k is at most the number of stored rows.

    row: int64 ``[B, k]``, of the bank. distance: ``[B, k]``, Euclidean. valid: bool ``[B, k]``; where False,
    fewer than k rows were allowed, the row means nothing and the distance is infinite.
    """

    row: Tensor
    distance: Tensor
    valid: Tensor


NO_ROW = -1  # the identity of a row of no table


class Bank(nn.Module):
    """Tensors of N stored rows, ``[N, ...]`` each, and the identity of each row; N is 0 until it is written.

    They are buffers of data-dependent size: None until they are written, saved with the model, and of the size that was
    saved when it is loaded. The gradient does not pass through them.

    Args:
        names: of the tensors, such as ``"features", "present"``; ``identity`` is always there besides.

    Raises:
        ConfigError: no name, one given twice, or one that an attribute of the module has.
    """

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        self.register_buffer("identity", None)
        if not names or len(set(names)) < len(names):
            raise ConfigError(
                f"a bank holds tensors of different names, at least one; got {', '.join(names) or 'none'}"
            )
        for name in names:
            if not name.isidentifier() or hasattr(self, name):
                raise ConfigError(f"a tensor of a bank cannot be called {name!r}; choose another name")
            self.register_buffer(name, None)

    def __len__(self) -> int:
        identity = self._buffers["identity"]
        return 0 if identity is None else len(identity)

    def write(self, identity: Tensor, **tensors: Tensor) -> None:
        """Put these rows in place of all that are stored.

        Args:
            identity: int64 ``[N]``, which row of the training source each is; -1: of none.
            tensors: ``[N, ...]``, one for each name; copied, without their graph.

        Raises:
            ConfigError: other names than those of the bank.
            DataError: different numbers of rows, or identities that are not int64 ``[N]``.
        """
        if tensors.keys() != set(self.names):
            raise ConfigError(f"this bank holds {', '.join(self.names)}; written were {', '.join(tensors) or 'none'}")
        if identity.dim() != 1 or identity.dtype != torch.int64:
            raise DataError(f"identity must be int64 [N], not {identity.dtype} {list(identity.shape)}")
        for name, tensor in tensors.items():
            if not tensor.dim() or len(tensor) != len(identity):
                raise DataError(f"{name} is {list(tensor.shape)} for {len(identity)} identities; give one row for each")
        for name, tensor in {"identity": identity, **tensors}.items():
            self._buffers[name] = tensor.detach().clone(memory_format=torch.contiguous_format)

    def read(self, name: str) -> Tensor:
        """The stored tensor ``[N, ...]``.

        Raises:
            ConfigError: no such name, or nothing was written yet, so that the shape of a row is not known.
        """
        if name not in self._buffers:
            raise ConfigError(f"this bank holds {', '.join(self.names)} and identity, not {name!r}")
        stored = self._buffers[name]
        if stored is None:
            raise ConfigError(f"the bank was not written yet; look at len(bank) before reading {name}")
        return stored

    def others(self, identity: Tensor) -> Tensor:
        """Which stored rows are other rows than the asked ones: int64 ``[B]`` -> bool ``[B, N]``.

        A row that is asked for finds itself in a bank that was filled from the same source; leave it out by this mask.
        Identity -1, asked or stored, is that of no row and excludes nothing.
        """
        if not len(self):
            return torch.ones(len(identity), 0, dtype=torch.bool, device=identity.device)
        asked = identity.to(self.read("identity").device)[:, None]
        return (asked != self.read("identity")) | (asked == NO_ROW)

    def nearest(self, query: Tensor, name: str, k: int, exclude: Tensor | None = None) -> Neighbours:
        """The k stored rows whose tensor is nearest to the query by Euclidean distance over all its values.

        Of rows at one distance the earlier stored one comes first. A query's neighbours do not depend on which other
        queries are asked at the same time.

        Args:
            query: ``[B, ...]``, finite, of the shape of a stored row.
            name: of the stored tensor ``[N, ...]``.
            k: how many, at least 1; all where fewer are stored.
            exclude: bool ``[B, N]``, stored rows that a query must not get, such as ``~bank.others(identity)``.

        Raises:
            ConfigError: no such name, or k below 1.
            DataError: rows of other shapes than the stored ones, or ``exclude`` that is not ``[B, N]``.
        """
        if name not in self.names or k < 1:
            raise ConfigError(f"nearest takes one of {', '.join(self.names)} and k of at least 1, not {name!r} and {k}")
        rows, stored = len(query), len(self)
        if exclude is not None and exclude.shape != (rows, stored):
            raise DataError(f"exclude is {list(exclude.shape)}; for these queries it must be {[rows, stored]}")
        if not stored:
            empty = query.new_zeros(rows, 0)
            return Neighbours(empty.long(), empty, empty.bool())
        distance = euclidean(query, self.read(name))
        if exclude is not None:
            distance = distance.masked_fill(exclude, torch.inf)
        distance, row = (part[:, :k] for part in distance.sort(stable=True, dim=1))
        return Neighbours(row, distance, distance < torch.inf)

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *rest: Any) -> None:
        """Takes the sizes of the state, whatever is stored now."""
        for name, stored in self._buffers.items():
            saved = state_dict.get(prefix + name)
            if saved is not None and (stored is None or stored.shape != saved.shape):
                self._buffers[name] = torch.empty_like(saved, device=saved.device if stored is None else stored.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)
