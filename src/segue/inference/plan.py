"""Serving plans: a Feast feature service, compiled to what the hot path must fetch and compute.

A plan is data. It is made from the registry once, at `apply`, travels inside the model bundle, and lets a serving
process read the online store without Feast. Its hash changes whenever the feature service changes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from segue.errors import BundleError

FORMAT = 1

KeyType = Literal["string", "int64"]


@dataclass(frozen=True)
class HashField:
    """One feature in a Redis hash: its name and the hash field's bytes, as hex."""

    name: str
    field_hex: str


@dataclass(frozen=True)
class HashPart:
    """A feature view in Feast's own Redis layout: one hash per entity, one field per feature."""

    view: str
    entity: str
    key_type: KeyType
    key_prefix_hex: str
    """What comes before the entity's own bytes in the key: the join key's name and the value's type."""
    key_suffix_hex: str
    timestamp_field: str
    ttl_seconds: int
    """0: never expires."""
    fields: tuple[HashField, ...]


@dataclass(frozen=True)
class HistoryPart:
    """A view kept as one sorted set of packed records per entity."""

    view: str
    entity: str
    key_prefix: str
    limit: int
    """How many records a history keeps."""


@dataclass(frozen=True)
class Column:
    """One column of the feature service: which part it comes from, and its type.

    `dtype` is int64 or float64, or one of them followed by [] for a list.
    """

    name: str
    dtype: str
    view: str


@dataclass(frozen=True)
class Plan:
    """Everything needed to read one feature service online, in its declared order."""

    feature_service: str
    project: str
    columns: tuple[Column, ...]
    hashes: tuple[HashPart, ...]
    histories: tuple[HistoryPart, ...]

    @property
    def hash(self) -> str:
        """SHA-256 of the plan's content, as hex."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """The plan with its hash and format, readable and stable."""
        return json.dumps({"format": FORMAT, "hash": self.hash, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a plan back.

        Raises:
            BundleError: the text is not a plan of this format, or its hash does not match its content.
        """
        try:
            content = json.loads(text)
            plan = cls._from_content(content)
            if (content["format"], content["hash"]) != (FORMAT, plan.hash):
                raise BundleError("serving plan: its hash or format does not match its content")
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"serving plan: malformed: {error}") from error
        return plan

    @classmethod
    def _from_content(cls, content: Mapping[str, Any]) -> Self:
        return cls(
            feature_service=content["feature_service"],
            project=content["project"],
            columns=tuple(Column(**each) for each in content["columns"]),
            hashes=tuple(
                HashPart(**{**each, "fields": tuple(HashField(**field) for field in each["fields"])})
                for each in content["hashes"]
            ),
            histories=tuple(HistoryPart(**each) for each in content["histories"]),
        )
