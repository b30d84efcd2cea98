"""Questions to foreign KMSs that a call of the engine has, and their answers.

Waiting for another host is nothing that an event loop can do between two requests. There, the engine raises `Pending`,
which has the question; whoever serves the request asks it in a thread, while others are served, and makes the same call
again with the answer: everything is decided anew. Where nobody else waits (a command, `envfs fsck`), the engine asks at
once.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Protocol, Self, TypeVar

from envfs.crypto.secret import Secret
from envfs.errors import EnvfsError, KmsUnreachable
from envfs.format.foreign_blob import SECRET_SIZE
from envfs.kms.foreign.configuration import ForeignKey

if TYPE_CHECKING:
    from envfs.kms.foreign.endpoint import Endpoint

R = TypeVar("R")

# ReEncrypt between two foreign keys asks two; a file with two headers of different keys, and readers, some more.
_MAX_ROUNDS: Final = 8


@dataclass(frozen=True, slots=True)
class Question:
    """`encrypt`: a fresh secret under the key; `decrypt`: a ciphertext; `try`: whether key and credentials work."""

    operation: Literal["encrypt", "decrypt", "try"]
    place: ForeignKey
    context: tuple[tuple[str, str], ...] = ()
    ciphertext: bytes = b""


@dataclass(slots=True)
class Answer:
    """`encrypt`: secret and ciphertext; `decrypt`: the secret; `try`: the ARN of the key and the size of a ciphertext.
    Or the error that there was instead.
    """

    secret: Secret | None = None
    ciphertext: bytes = b""
    arn: str = ""
    size: int = 0
    error: EnvfsError | None = None

    def wipe(self) -> None:
        if self.secret is not None:
            self.secret.wipe()


class Pending(Exception):
    """The call needs an answer first, and changed nothing. `kept`: what has to be the same when it is made again."""

    def __init__(self, question: Question) -> None:
        super().__init__("a foreign KMS has to be asked")
        self.question = question
        self.kept = b""


def ask(question: Question) -> Answer:
    """Asks, and waits for the answer, at most `endpoint.TOTAL_SECONDS` or so. Never raises EnvfsErrors."""
    # Loaded when it is needed: HTTP and TLS take longer to load than a whole command that needs neither.
    module = importlib.import_module("envfs.kms.foreign.endpoint")
    endpoint: Endpoint = module.endpoint_of(question.place)
    key = question.place.key
    try:
        if question.operation == "try":
            arn, size = endpoint.try_out(key)
            return Answer(arn=arn, size=size)
        if question.operation == "decrypt":
            return Answer(endpoint.decrypt(key, question.ciphertext, dict(question.context)))
        secret = Secret.random(SECRET_SIZE)
        try:
            return Answer(secret, endpoint.encrypt(key, secret, dict(question.context)))
        except BaseException:
            secret.wipe()
            raise
    except EnvfsError as error:
        return Answer(error=error)


class Exchange:
    """The answers of one request, which are wiped when it ends."""

    def __init__(self) -> None:
        self._answers: dict[Question, Answer] = {}
        self._kept = b""

    def put(self, question: Question, answer: Answer) -> None:
        self._answers[question] = answer

    def take(self, question: Question) -> Answer:
        """Pending if there is none. A secret that was encrypted is given once, or two blobs might be sealed with it."""
        answer = self._answers.get(question)
        if answer is None:
            raise Pending(question)
        if question.operation == "encrypt":
            del self._answers[question]
            if answer.secret is not None:  # whoever opens the blob in this same request need not ask
                again = Question("decrypt", question.place, question.context, answer.ciphertext)
                self._answers[again] = Answer(answer.secret)
        return answer

    def keep(self, kept: bytes) -> None:
        self._kept = kept

    def recall(self) -> bytes:
        """What `Pending.kept` had, once."""
        kept, self._kept = self._kept, b""
        return kept

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for answer in self._answers.values():
            answer.wipe()
        self._answers.clear()


class Asker:
    """The engine's side: has the exchange of the present request, or asks at once."""

    def __init__(self) -> None:
        self._exchange: Exchange | None = None

    def never_wait(self) -> None:
        """From now on, calls that need a foreign KMS raise Pending."""
        self._exchange = Exchange()

    @contextmanager
    def answering(self, exchange: Exchange) -> Iterator[None]:
        """Calls in the block find their answers in `exchange`."""
        before, self._exchange = self._exchange, exchange
        try:
            yield
        finally:
            self._exchange = before

    def recall(self) -> bytes:
        """What the call kept when it was made before and was Pending; empty if it was not."""
        return b"" if self._exchange is None else self._exchange.recall()

    @contextmanager
    def answer(self, question: Question) -> Iterator[Answer]:
        """The answer, its secret for the length of the block. Raises its error, or Pending."""
        if self._exchange is not None:
            found = self._exchange.take(question)
            if found.error is not None:
                raise found.error
            yield found
            return
        found = ask(question)
        try:
            if found.error is not None:
                raise found.error
            yield found
        finally:
            found.wipe()


class Answering(Protocol):
    """An engine, as far as it matters here."""

    def answering(self, exchange: Exchange) -> AbstractContextManager[None]: ...


async def complete(
    engine: Answering, call: Callable[[], R], pending: Pending, ask_elsewhere: Callable[[Question], Awaitable[Answer]]
) -> R:
    """The outcome of `call`, which was Pending: asks, and makes the call again, until it has what it needs.

    `ask_elsewhere` waits beside the event loop, and does not raise EnvfsErrors.
    """
    with Exchange() as exchange:
        for _ in range(_MAX_ROUNDS):
            exchange.put(pending.question, await ask_elsewhere(pending.question))
            exchange.keep(pending.kept)
            try:
                with engine.answering(exchange):
                    return call()
            except Pending as again:
                pending = again
        raise KmsUnreachable("what has to be asked of foreign KMSs changes with every answer", hint="try again")
