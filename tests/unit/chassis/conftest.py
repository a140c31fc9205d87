"""Examples of hypothesis are the same in every run, and none fails because the machine was busy."""

from hypothesis import settings

settings.register_profile("steady", derandomize=True, deadline=None, database=None)
settings.load_profile("steady")
