"""From the event log into the online store and the event lake."""
