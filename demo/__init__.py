"""The demonstration: everything, started, trained, asked and stopped."""
