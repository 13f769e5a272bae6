"""The server's entry for the benchmarks: HTTP as the platform serves it."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.bench.settings")

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from engarde.common.bridge import WSGIBridge

application = WSGIBridge(get_wsgi_application(), workers=settings.WEB_THREADS)  # type: ignore[arg-type]
