"""The content room's Django application."""

from django.apps import AppConfig


class ContentConfig(AppConfig):
    """Items and their documents."""

    name = "content"
    verbose_name = "Content"
