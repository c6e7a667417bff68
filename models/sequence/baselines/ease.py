"""EASE (Steck, WWW 2019): the linear model that best tells an item of a customer from their others, in closed form."""

import numpy as np
from scipy import linalg  # type: ignore[import-untyped]

from models.sequence.baselines.linear import Table, interactions
from models.sequence.dataset import Corpus


def ease(corpus: Corpus, *, penalty: float) -> Table:
    """`B = I - P / diag(P)` with `P = (X'X + penalty I)^-1`: one inversion, cubic in the items of the vocabulary.

    Args:
        penalty: of squared weights.
    """
    turned = interactions(corpus)
    gram = np.asarray((turned.T @ turned).todense(), np.float64)
    gram[np.diag_indices_from(gram)] += penalty
    inverse = linalg.inv(gram, overwrite_a=True, check_finite=False)
    table = inverse / -np.diag(inverse)
    np.fill_diagonal(table, 0.0)
    return table
