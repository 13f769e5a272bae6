"""Serializers that take exactly what is documented: no coercion, no unknown fields, no silent defaults for bad values."""

import math
import re
from datetime import UTC, date, datetime
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.validators import ProhibitSurrogateCharactersValidator

from engarde.common.logs import clean_text

MAX_DEPTH = 20
DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?([Zz]|[+-]\d{2}:\d{2})?", re.ASCII)
WHOLE_NUMBER = re.compile("-?[0-9]{1,18}")  # fits a bigint


# What a field takes in JSON; DRF would also turn the number 5 into the id 00000000-…-0005, and "yes" into true.
JSON_TYPES: dict[type[serializers.Field[Any, Any, Any, Any]], tuple[type, ...]] = {
    serializers.UUIDField: (str,),
    serializers.BooleanField: (bool,),
    serializers.IntegerField: (int,),
    serializers.FloatField: (int, float),
    serializers.ChoiceField: (str,),
    serializers.CharField: (str,),
    serializers.DateTimeField: (str,),
}


class StrictSerializer(serializers.Serializer[Any]):
    """Takes JSON of the documented types only, and refuses fields that it does not know."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the validated values.

        Raises:
            ValidationError: one error a field, unknown fields included.
        """
        errors: dict[Any, Any] = {}
        if isinstance(data, dict):
            unknown = sorted(str(name)[:100] for name in data if name not in self.fields)
            unknown_field = [serializers.ErrorDetail("Unknown field.", code="unknown_field")]
            errors = {clean_text(name): unknown_field for name in unknown}  # said back, but for a credential
            errors |= self._mistyped(data)
        try:
            values = super().to_internal_value(data)
        except serializers.ValidationError as error:
            raise serializers.ValidationError({**errors, **_as_dict(error.detail)}) from error
        if errors:
            raise serializers.ValidationError(errors)
        return values

    def _mistyped(self, data: dict[str, Any]) -> dict[str, Any]:
        wrong = [name for name, field in self.fields.items() if not _is_of_type(field, data.get(name))]
        return {name: [serializers.ErrorDetail("Of the wrong JSON type.", code="invalid")] for name in wrong}


def _is_of_type(field: Any, value: Any) -> bool:
    """Tell whether a value has a field's JSON type, or is null, which the field itself judges."""
    if isinstance(field, serializers.ListField):
        return not isinstance(value, list) or all(_is_of_type(field.child, entry) for entry in value)
    for kind, types in JSON_TYPES.items():
        if isinstance(field, kind):
            return value is None or (isinstance(value, types) and (bool in types or not isinstance(value, bool)))
    return True


def _as_dict(detail: Any) -> dict[Any, Any]:
    return detail if isinstance(detail, dict) else {"non_field_errors": detail}


def parse(serializer: type[StrictSerializer], request: Request, *, partial: bool = False) -> dict[str, Any]:
    """Return the validated body of a request.

    Raises:
        ValidationError: naming each bad field.
    """
    bound = serializer(data=request.data, partial=partial)
    bound.is_valid(raise_exception=True)
    return dict(bound.validated_data)


class QuerySerializer(StrictSerializer):
    """Query parameters: an unknown or malformed one is refused, never ignored, and a repeated one that is not a list."""

    def _mistyped(self, data: dict[str, Any]) -> dict[str, Any]:
        return {}  # all of them are text

    @classmethod
    def parse(cls, request: Any) -> dict[str, Any]:
        """Return the validated parameters of a request.

        Raises:
            ValidationError: naming each bad parameter.
        """
        lists = {name for name, field in cls._declared_fields.items() if isinstance(field, serializers.ListField)}
        given = dict(request.query_params.lists())
        repeated = {name: ["Give it once."] for name in given.keys() - lists if len(given[name]) > 1}
        if repeated:
            raise serializers.ValidationError(repeated)
        serializer = cls(data={name: values if name in lists else values[0] for name, values in given.items()})
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)


class QueryIntegerField(serializers.IntegerField):
    """A whole number in a query: ASCII digits, where Python's `int` also reads `1_0`, ` 1 ` and `٣`."""

    def to_internal_value(self, data: Any) -> int:
        """Return the number.

        Raises:
            ValidationError: not a whole number.
        """
        if not WHOLE_NUMBER.fullmatch(str(data)):
            self.fail("invalid")
        return super().to_internal_value(data)


@extend_schema_field(OpenApiTypes.STR)
class QueryTimeField(serializers.Field[Any, str, str, Any]):
    """A time (RFC 3339; UTC without a zone) or a bare date in a query."""

    default_error_messages = {"invalid": "Give a date such as 2026-01-31 or a time such as 2026-01-31T12:00:00Z."}

    def to_internal_value(self, data: str) -> date | datetime:
        """Return a date where no time was given.

        Raises:
            ValidationError: neither a date nor a time.
        """
        try:
            if DATE.fullmatch(data):
                return date.fromisoformat(data)
            found = datetime.fromisoformat(data.upper()) if TIME.fullmatch(data) else self.fail("invalid")
            return found if found.tzinfo else found.replace(tzinfo=UTC)
        except ValueError:
            self.fail("invalid")

    def to_representation(self, value: Any) -> str:
        """Return it as text."""
        return str(value.isoformat())


def start_of(when: date | datetime) -> datetime:
    """Return a time as it is, and the beginning of a date's day in UTC."""
    return when if isinstance(when, datetime) else datetime(when.year, when.month, when.day, tzinfo=UTC)


class NoQuery(QuerySerializer):
    """No query parameters at all."""


class NoSurrogates(ProhibitSurrogateCharactersValidator):
    """DRF's validator, which looks at each character in Python, but for text without fault: of 1 MiB that takes 1 ms in place of 36."""

    def __call__(self, value: Any) -> None:
        """Refuse a text with a lone surrogate.

        Raises:
            ValidationError: it has one.
        """
        try:
            str(value).encode()
        except UnicodeEncodeError:
            super().__call__(value)


class TextField(serializers.CharField):
    """A JSON string, kept exactly as sent (no trimming, no numbers turned into text); no NUL, no lone surrogates."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"trim_whitespace": False, **kwargs})
        self.validators = [
            NoSurrogates() if isinstance(one, ProhibitSurrogateCharactersValidator) else one for one in self.validators
        ]

    def to_internal_value(self, data: Any) -> str:
        """Return the text.

        Raises:
            ValidationError: not a string.
        """
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class TextListField(serializers.ListField):
    """A list of at most 100 texts of at most 100 characters."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(child=TextField(max_length=100), max_length=100, **kwargs)


@extend_schema_field(OpenApiTypes.OBJECT)
class MetadataField(serializers.JSONField):
    """A JSON object of at most 64 KiB and 20 levels, with finite numbers and clean text."""

    default_error_messages = {
        "not_an_object": "Expected an object.",
        "too_deep": f"At most {MAX_DEPTH} levels of nesting.",
        "too_large": "At most 64 KiB of JSON.",
        "number": "Numbers must be finite.",
        "nul": "Null characters are not allowed.",
        "not_json": "Texts need to be Unicode and integers to fit 64 bits.",
    }
    max_bytes = 64 * 1024

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Return the object as sent.

        Raises:
            ValidationError: not an object, too deep, too large, or not storable as text.
        """
        from engarde.common import json  # noqa: PLC0415 -- DRF settings import this package's parsers

        if not isinstance(data, dict):
            self.fail("not_an_object")
        self._check(data, depth=1)
        try:
            size = len(json.dumps(data))
        except TypeError:  # lone surrogates, integers that no JSON here holds
            self.fail("not_json")
        if size > self.max_bytes:
            self.fail("too_large")
        return data

    def _check(self, value: Any, *, depth: int) -> None:
        if depth > MAX_DEPTH:
            self.fail("too_deep")
        if isinstance(value, float) and not math.isfinite(value):
            self.fail("number")
        if isinstance(value, str) and "\0" in value:
            self.fail("nul")
        children = (*value.keys(), *value.values()) if isinstance(value, dict) else value
        if isinstance(value, dict | list):
            for child in children:
                self._check(child, depth=depth + isinstance(child, dict | list))
