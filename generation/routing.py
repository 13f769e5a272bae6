"""Addresses of WebSockets."""

from channels.generic.websocket import AsyncWebsocketConsumer
from django.urls import path, re_path

from generation.consumers import NOT_FOUND, JobConsumer


class NothingConsumer(AsyncWebsocketConsumer):
    """Addresses that lead nowhere, malformed ids among them."""

    channel_layer_alias = "none"

    async def connect(self) -> None:
        """Accept first, so that a browser sees the code."""
        await self.accept()
        await self.close(code=NOT_FOUND, reason="There is nothing at this address.")


websocket_urlpatterns = [
    path("ws/generation-jobs/<id:job_id>", JobConsumer.as_asgi()),
    path("ws/generation-jobs/<id:job_id>/", JobConsumer.as_asgi()),
    re_path(r"", NothingConsumer.as_asgi()),
]
