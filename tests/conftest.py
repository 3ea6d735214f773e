"""What all tests share: hypothesis draws the same examples every time, and does not time them."""

from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")
