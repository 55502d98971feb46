"""Property tests have no deadline: no test depends on the speed of the machine (`make fuzz` runs them much slower)."""

from hypothesis import settings

settings.register_profile("fastscreen", deadline=None)
settings.load_profile("fastscreen")
