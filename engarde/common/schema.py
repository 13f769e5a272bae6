"""OpenAPI: what drf-spectacular cannot see by itself."""

from typing import Any

from drf_spectacular.openapi import AutoSchema as SpectacularSchema
from drf_spectacular.utils import OpenApiResponse
from rest_framework import serializers

from engarde.common.fields import StrictSerializer
from engarde.common.problems import PROBLEM_JSON


class ProblemOutput(serializers.Serializer[Any]):
    """An error (RFC 9457); `errors` is there for input that breaks a rule."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.CharField(help_text="Stable name in snake_case.")
    request_id = serializers.CharField()
    errors = serializers.ListField(  # type: ignore[assignment]  # the contract's name for it
        child=serializers.DictField(child=serializers.CharField()), required=False
    )


class AutoSchema(SpectacularSchema):
    """Adds the problem answer to every operation, and says that a body takes no unknown fields."""

    def _map_basic_serializer(self, serializer: Any, direction: Any) -> dict[str, Any]:
        mapped: dict[str, Any] = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call]
        if direction == "request" and isinstance(serializer, StrictSerializer):
            mapped["additionalProperties"] = False
        return mapped

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        problem = self._get_response_for_code(  # type: ignore[no-untyped-call]
            OpenApiResponse(ProblemOutput, description="Problem"), "default", media_types=[PROBLEM_JSON]
        )
        return {**bodies, "default": problem}
