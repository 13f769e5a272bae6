"""What probes and Prometheus ask by plain HTTP, under an address that no ALLOWED_HOSTS names, is answered in production."""

import json
import os
import subprocess
import sys
from uuid import uuid4

import pytest

from engarde.embedded import session
from engarde.embedded.paths import PROJECT_ROOT
from tests.deployment.house import HOST

TOKEN = "a-token-for-prometheus"
PROBES = ("/health", "/health/live", "/health/ready", "/metrics")
FOREIGN = "10.0.0.7:8000"
ASK = """
import json, sys
import django
django.setup()
from django.test import Client
found = {}
for host, path, *headers in json.load(sys.stdin):
    answer = Client().get(path, headers={"Host": host, **dict(headers)})
    found[f"{host}{path}"] = [answer.status_code, answer.headers.get("Location", "")]
print(json.dumps(found))
"""


def answers(*asked: tuple[object, ...]) -> dict[str, list[object]]:
    """Return the status and Location that production's settings give, with SECURE_SSL_REDIRECT as it is by default."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "SECURE_SSL_REDIRECT"},
        "DJANGO_SETTINGS_MODULE": "engarde.settings",
        "ENGARDE_ENV": "production",
        "SECRET_KEY": uuid4().hex * 2,
        "ALLOWED_HOSTS": HOST,
        "PUBLIC_URL": f"https://{HOST}",
        "METRICS_TOKEN": TOKEN,
        session.JOINED: "joined",
    }
    command = [sys.executable, "-W", "ignore", "-c", ASK]
    done = subprocess.run(
        command, env=environment, cwd=PROJECT_ROOT, input=json.dumps(asked), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.usefixtures("database")
def test_probes_are_answered_by_plain_http_under_any_host_and_nothing_else_is() -> None:
    bearer = ("Authorization", f"Bearer {TOKEN}")
    found = answers(
        *((FOREIGN, path, bearer) for path in PROBES),
        (HOST, "/metrics"),
        (FOREIGN, "/api/content"),
        (HOST, "/api/content"),
    )

    assert {path: found[FOREIGN + path] for path in PROBES} == {path: [200, ""] for path in PROBES}
    assert found[f"{HOST}/metrics"] == [401, ""]
    assert found[f"{FOREIGN}/api/content"] == [400, ""]
    assert found[f"{HOST}/api/content"] == [301, f"https://{HOST}/api/content"]
