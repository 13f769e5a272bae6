"""What tests expect of answers."""

from typing import Any

PROBLEM = {"type", "title", "status", "detail", "code", "request_id"}


def refused(answer: Any, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is a problem, and return it."""
    assert answer.status_code == status, answer.content[:500]
    assert answer["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem.keys() >= PROBLEM
    assert (problem["status"], problem["code"]) == (status, code)
    return problem


def bad_fields(answer: Any) -> set[str]:
    """Check that an answer refuses fields or parameters, and return their names."""
    errors = refused(answer, 400, "validation_error")["errors"]
    return {error["field"].split(".")[0] for error in errors}


def ok(answer: Any, status: int = 200) -> dict[str, Any]:
    """Check that an answer is no problem, and return its body."""
    assert answer.status_code == status, answer.content[:500]
    return dict(answer.json())
