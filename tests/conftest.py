"""For all tests: hypothesis asserts no times, for machines are as fast as they are."""

from hypothesis import settings

settings.register_profile("genet", deadline=None)
settings.load_profile("genet")
