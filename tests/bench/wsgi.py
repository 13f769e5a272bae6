"""The server's entry for the benchmarks."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.bench.settings")

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
