"""The embedded services, one module each."""

from collections.abc import Mapping

from engarde.embedded.services.base import Service
from engarde.embedded.services.bigquery import BigQuery
from engarde.embedded.services.llm import LLM
from engarde.embedded.services.postgres import Postgres
from engarde.embedded.services.valkey import Valkey
from engarde.embedded.services.zerodb import ZeroDB

SERVICES: Mapping[str, type[Service]] = {service.name: service for service in (Postgres, Valkey, ZeroDB, BigQuery, LLM)}

__all__ = ["SERVICES", "Service"]
