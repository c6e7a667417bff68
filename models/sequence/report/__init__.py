"""The report: one HTML page that needs nothing beside it, and the same numbers as a table for a terminal."""

from models.sequence.report.items import FirstSeen, Items, exported_embedding
from models.sequence.report.page import Subject, write
from models.sequence.report.summary import card, headline, table

__all__ = ["FirstSeen", "Items", "Subject", "card", "exported_embedding", "headline", "table", "write"]
