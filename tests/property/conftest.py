"""Property tests run without a deadline, because `make fuzz` runs them much slower."""

from hypothesis import settings

settings.register_profile("fastscreen", deadline=None)
settings.load_profile("fastscreen")
