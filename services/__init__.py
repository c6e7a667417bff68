"""The services: one folder each, a composition root and what it composes."""
