"""Hypothesis profiles of the unit tests."""

from hypothesis import Phase, settings

# A planted fault need only be noticed, not told in its shortest form.
settings.register_profile("noticing", deadline=None, phases=[Phase.explicit, Phase.generate])
