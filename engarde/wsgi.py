"""HTTP: Django's WSGI application, which `engarde.asgi` serves in threads."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "engarde.settings")

application = get_wsgi_application()
