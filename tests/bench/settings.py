"""The platform's settings with the baseline beside it: both are served by the same processes."""

from engarde.settings import *  # noqa: F403 -- all of them, and what follows

INSTALLED_APPS = [*INSTALLED_APPS, "tests.bench.baseline"]  # noqa: F405
ROOT_URLCONF = "tests.bench.urls"
