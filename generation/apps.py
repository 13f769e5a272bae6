"""The generation app."""

from django.apps import AppConfig


class GenerationConfig(AppConfig):
    """AI generation on the customers' own provider keys."""

    name = "generation"
    verbose_name = "Generation"
