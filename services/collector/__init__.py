"""The collector: the way in for events, and the only place that sees a caller's own customer ids."""
