"""Tasks: what every method is asked to do."""

from kintsugi.tasks.classification import Classification
from kintsugi.tasks.multilabel import Multilabel
from kintsugi.tasks.ordinal import Ordinal
from kintsugi.tasks.regression import Regression

__all__ = ["Classification", "Multilabel", "Ordinal", "Regression"]
