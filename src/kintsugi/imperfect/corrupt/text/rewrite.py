"""Corruption of text by a function of the user's: back translation, paraphrase, change of style."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from kintsugi.core.batch import Batch
from kintsugi.core.data import Data
from kintsugi.core.errors import ConfigError, DataError
from kintsugi.imperfect.corrupt.text._common import TextOperator
from kintsugi.imperfect.distortion import Distortion, marked, put
from kintsugi.imperfect.operator import check_severity
from kintsugi.imperfect.plan import Plan
from kintsugi.imperfect.spec import word


class _Function(TextOperator):
    """Texts through a function, each once."""

    key, title = "rewritten", "rewritten by a function"
    source = "a function of the user's"
    parameters = {"default": {}}  # noqa: RUF012
    random = False

    def __init__(self, function: Callable[[list[str]], list[str]], name: str, known: dict[str, str]) -> None:
        self.function, self.name, self.known = function, name, known

    def edit(self, texts: Sequence[str], index: Tensor, plan: Plan) -> list[str]:
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            made = self.function(list(new))
            if isinstance(made, str) or len(made) != len(new) or not all(isinstance(text, str) for text in made):
                raise DataError(
                    f"{self.name} must return a list of {len(new)} texts for {len(new)} texts, not {made!r:.80}"
                )
            self.known.update(zip(new, made, strict=True))
        return [self.known[text] if self.known[text].strip() else text for text in texts]


@dataclass(frozen=True)
class Rewritten(Distortion):
    """Text that a function rewrites; see :func:`rewritten`."""

    modality: str
    function: Callable[[list[str]], list[str]] = field(compare=False, repr=False)
    name: str
    severity: int = 3
    _known: dict[str, str] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_severity(f"rewritten({self.modality})", self.severity)
        if not isinstance(self.modality, str):
            raise ConfigError(f"rewritten needs the name of a modality, not {self.modality!r}")
        if not callable(self.function):
            raise ConfigError(
                f"rewritten needs a function from a list of texts to a list of texts, not {self.function!r}"
            )
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"rewritten needs a name, such as name='back_translation', not {self.name!r}")

    @property
    def modalities(self) -> tuple[str, ...]:
        return (self.modality,)

    @property
    def _operator(self) -> _Function:
        return _Function(self.function, self.name, self._known)

    def plan(self, data: Data, seed: int) -> Plan:
        """The plan; its hash is one of the name, the modality, the severity and the seed."""
        self._operator.check(data.schema[self.modality])
        return Plan("rewritten", self.modality, self.severity, int(seed), {"name": self.name})

    def apply(self, batch: Batch, plan: Plan) -> Batch:
        column = batch.names.index(self.modality)
        here = batch.present[:, column]
        rows = here.nonzero().flatten()
        if plan.severity == 0 or len(rows) == 0:
            return batch
        x, mask = batch.inputs[self.modality], batch.mask.get(self.modality)
        seen = None if mask is None else mask[rows]
        damaged, after = self._operator.apply(x[rows], batch.index[rows], plan, seen)
        masks = dict(batch.mask)
        if mask is not None and after is not None and after is not seen:
            masks[self.modality] = put(mask, rows, after)
        inputs = {**batch.inputs, self.modality: put(x, rows, damaged)}
        return marked(replace(batch, inputs=inputs, mask=masks), here, column, plan.severity)

    @property
    def shape(self) -> str:
        return f"rewritten({word(self.modality)}, {word(self.name)})"

    def __str__(self) -> str:
        severity = "" if self.severity == 3 else f", severity={self.severity}"
        return f"{self.shape[:-1]}{severity})"


def rewritten(modality: str, function: Callable[[list[str]], list[str]], *, name: str, severity: int = 3) -> Rewritten:
    """Text that a function rewrites, such as a model for back translation or paraphrase.

    Each text goes through the function once and is remembered, so a row is the same in any batch of this process. That
    it is the same elsewhere, the function has to see to: it must not draw at random, and what it makes of a text must not
    depend on the texts beside it. Plans and reports know the function by its name only, and a spec that is text cannot
    name it.

    Args:
        modality: a name of the schema; of kind text, read as bytes.
        function: from a list of texts, none of them empty, to a list of as many texts. A text for which it returns
            nothing but blanks stays as it is.
        name: what the function is, as reports and hashes say it; change it when the function changes.
        severity: the level, 1 to 5, that is recorded for the rows; nothing else depends on it. 0 does nothing.

    Raises:
        ConfigError: no name of a modality, no function, no name or no such severity.
        DataError: the function returns something else, when it is applied.
    """
    return Rewritten(modality, function, name, severity)
