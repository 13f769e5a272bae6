"""The port: what a text generator takes, gives and raises. An adapter translates one vendor's SDK, and retries nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypedDict

VERIFY_SECONDS = 5.0


class Message(TypedDict):
    """A turn of a conversation; `role` is user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a call used, as the provider counts it."""

    input: int = 0
    output: int = 0

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.input + other.input, self.output + other.output)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a model.

    Attributes:
        schema: a JSON schema that the answer shall follow.
        temperature: None for the model's own.
        max_tokens: of the answer.
        timeout: seconds for all of it.
    """

    model: str
    system: str
    messages: Sequence[Message]
    schema: Mapping[str, Any]
    max_tokens: int
    timeout: float
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said.

    Attributes:
        is_cut: whether it ended because `max_tokens` were used up.
    """

    text: str
    tokens: Tokens = field(default_factory=Tokens)
    is_cut: bool = False


class LLMError(Exception):
    """A call failed. Subclasses say what to do about it.

    Attributes:
        code: stable name in snake_case.
        tokens: what it cost all the same.
    """

    code: ClassVar[str] = "llm_error"

    def __init__(self, message: str, *, tokens: Tokens | None = None) -> None:
        super().__init__(message)
        self.tokens = tokens or Tokens()


class Throttled(LLMError):
    """The provider asks for fewer calls (429), or is overloaded (503, 529): wait, and let everybody on the key wait.

    Attributes:
        retry_after: seconds that it asked for; None when it did not say.
    """

    code = "llm_rate_limited"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(LLMError):
    """No answer, a broken one, or an error of the provider's own (408, 5xx): worth another try later."""

    code = "llm_unavailable"


class TimedOut(Unavailable):
    """No answer in time."""

    code = "llm_timeout"


class KeyRefused(LLMError):
    """The provider does not take the key (401, 403): no call on it will work."""

    code = "llm_key_invalid"


class NoCredit(LLMError):
    """The account behind the key has nothing left to spend (402, insufficient quota)."""

    code = "llm_no_credit"


class UnknownModel(LLMError):
    """The provider has no such model, or not for this key."""

    code = "unknown_model"


class ContentRefused(LLMError):
    """The model or the provider's filter will not write this; another try would not help."""

    code = "content_refused"


class Rejected(LLMError):
    """The provider says that the call itself is wrong (other 4xx); another try would not help."""

    code = "llm_rejected"


class TextGenerator(Protocol):
    """A provider, with a key. Use it inside one event loop, and close it there."""

    async def answer(self, call: Call) -> Answer:
        """Call a model once.

        Raises:
            LLMError: one of its subclasses.
        """
        ...

    async def models(self) -> list[str]:
        """Return the ids of the models that the key may use: one cheap call that costs nothing, within VERIFY_SECONDS.

        Raises:
            LLMError: one of its subclasses.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...
