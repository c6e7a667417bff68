"""Item-kNN: the items whose customers are most alike those of the prefix's items (Sarwar et al., WWW 2001)."""

import numpy as np
from scipy import sparse  # type: ignore[import-untyped]

from models.sequence.baselines.linear import Table, interactions
from models.sequence.dataset import Corpus


def neighbours(corpus: Corpus, *, count: int, shrinkage: float) -> Table:
    """Cosine between the sets of customers, kept for the `count` nearest of each item.

    Args:
        count: neighbours per item.
        shrinkage: added to the cosine's denominator, so that two items of one same customer are not alike.
    """
    turned = interactions(corpus)
    together = sparse.coo_array(turned.T @ turned)
    source, other = together.coords
    size = np.asarray(turned.sum(axis=0))
    cosine = together.data / (np.sqrt(size[source] * size[other]) + shrinkage)
    apart = source != other
    source, other, cosine = source[apart], other[apart], cosine[apart]
    order = np.lexsort((other, -cosine, source))
    ordered = source[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    nearest = order[rank < count]
    cells = source[nearest], other[nearest]
    return sparse.csr_array((cosine[nearest], cells), shape=together.shape)
