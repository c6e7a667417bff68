"""The embedding of many customers, each as of a time, for whoever trains on it elsewhere: written without their ids."""

from pathlib import Path

from segue.adapters import embeddings as files
from segue.adapters.lake import Lake
from segue.errors import InvalidInput
from segue.features.batch import DAY_MS
from segue.inference.answers import Status
from segue.inference.bundle import Bundle
from segue.inference.embedding import Embeddings, Encoder


def embed(labels: Path, out: Path, *, lake: Lake, bundle: Bundle, ttl_days: int) -> Embeddings:
    """Embed every (customer, time) of the Parquet file `labels` by `bundle`, and write what `files.write` writes.

    Raises:
        BundleError: the bundle holds no encoder.
        InvalidInput: `labels`, `out` or `ttl_days` cannot be used, or the lake holds no event.
    """
    if out.resolve() == labels.resolve():
        raise InvalidInput.because("out", "is the list itself, which would be lost")
    encoder = Encoder.load(bundle, ttl_ms=ttl_days * DAY_MS)
    customers, t_ms = files.read_labels(labels)
    made = files.embeddings_as_of(lake, encoder, customers, t_ms)
    files.write(out, made)
    return made


def summary(made: Embeddings) -> str:
    """What was made, in counts: nobody is named."""
    missing = made.status.count(Status.MISSING)
    before = int(made.before_cut.sum())
    parts = [
        f"{len(made):,} rows of width {made.matrix.shape[1]} by {made.version.tag}",
        f"{missing:,} of customers without a known item",
        f"{before:,} as of before the encoder's data cut: to learn from, not to be judged by",
    ]
    return "; ".join(parts)
