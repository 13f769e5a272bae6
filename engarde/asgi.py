"""HTTP and WebSockets on one port: the ASGI application that granian serves."""

from channels.routing import ProtocolTypeRouter, URLRouter

from engarde.common.bridge import PromptClose, WSGIBridge
from engarde.wsgi import application as http

from django.conf import settings  # isort: skip -- Django is set up by the line before

from engarde import urls  # noqa: F401 -- registers the converters that routes use
from generation.routing import websocket_urlpatterns

application = ProtocolTypeRouter(
    {
        "http": WSGIBridge(http, workers=settings.WEB_THREADS),  # type: ignore[arg-type]  # Django's handler says less
        "websocket": PromptClose(URLRouter(websocket_urlpatterns)),
    }
)
