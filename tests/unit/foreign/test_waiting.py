"""Waiting for foreign KMSs beside an event loop: how long, how many, and what becomes of answers that come too late."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from envfs.crypto.secret import Secret
from envfs.errors import EnvfsError, KmsTimeout, Throttling
from envfs.foreign import waiting as waiting_module
from envfs.foreign.waiting import MOST_OF_ONE_USER, THREADS, ForeignWait
from envfs.kms.foreign.configuration import ForeignKey
from envfs.kms.foreign.exchange import Answer, Asker, Exchange, Pending, Question

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLACE = ForeignKey("arn", "region")


class Calls:
    """An engine whose only call decrypts under a foreign key."""

    def __init__(self) -> None:
        self._asker = Asker()
        self._asker.never_wait()

    @contextmanager
    def answering(self, exchange: Exchange) -> Iterator[None]:
        with self._asker.answering(exchange):
            yield

    def call(self, name: str = "") -> bytes:
        with self._asker.answer(Question("decrypt", PLACE, ciphertext=name.encode())) as answer:
            assert answer.secret is not None
            return bytes(answer.secret.expose())


class Foreign:
    """What stands for the foreign KMS: answers when it is let."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.answers: list[Answer] = []
        self.asked = threading.Semaphore(0)

    def ask(self, question: Question) -> Answer:
        self.asked.release()
        self.may_answer.wait(30)
        self.answers.append(Answer(Secret(question.ciphertext or b"x")))
        return self.answers[-1]


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Iterator[Foreign]:
    made = Foreign()
    monkeypatch.setattr(waiting_module, "ask", made.ask)
    yield made
    made.may_answer.set()


async def complete(wait: ForeignWait, engine: Calls, uid: int = 1000, name: str = "x") -> bytes:
    call: Callable[[], bytes] = lambda: engine.call(name)  # noqa: E731
    with pytest.raises(Pending) as pending:
        call()
    return await wait.complete(engine, uid, call, pending.value)


def is_wiped(answer: Answer) -> bool:
    assert answer.secret is not None
    try:
        answer.secret.expose()
    except ValueError:
        return True
    return False


async def first_is_wiped(foreign: Foreign) -> None:
    with trio.fail_after(10):
        while not foreign.answers or not is_wiped(foreign.answers[0]):  # noqa: ASYNC110 - it happens in a thread
            await trio.sleep(0.01)


async def test_an_answer_that_comes_too_late_is_wiped(foreign: Foreign) -> None:
    with pytest.raises(KmsTimeout):
        await complete(ForeignWait(seconds=0.05), Calls())
    foreign.may_answer.set()
    await first_is_wiped(foreign)


async def test_a_wait_that_is_cancelled_ends_at_once_and_its_answer_is_wiped(foreign: Foreign) -> None:
    with trio.move_on_after(0.05) as scope:
        await complete(ForeignWait(), Calls())
    assert scope.cancelled_caught
    foreign.may_answer.set()
    await first_is_wiped(foreign)


async def test_so_many_threads_and_no_more_and_all_are_answered(foreign: Foreign) -> None:
    wait, engine, found = ForeignWait(), Calls(), []

    async def one(name: str) -> None:
        found.append(await complete(wait, engine, name=name))

    names = [f"{number:02}" for number in range(3 * THREADS)]
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(one, name)
        for _ in range(THREADS):
            await trio.to_thread.run_sync(foreign.asked.acquire)
        await trio.sleep(0.05)
        assert not foreign.asked.acquire(blocking=False)
        foreign.may_answer.set()
    assert sorted(found) == [name.encode() for name in names]
    assert all(is_wiped(answer) for answer in foreign.answers)


async def test_one_user_does_not_take_all_the_places(foreign: Foreign) -> None:
    wait, engine = ForeignWait(), Calls()
    refused: list[EnvfsError] = []
    served: list[bytes] = []

    async def one(uid: int) -> None:
        try:
            served.append(await complete(wait, engine, uid))
        except Throttling as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(MOST_OF_ONE_USER + 5):
            nursery.start_soon(one, 1000)
        await trio.testing.wait_all_tasks_blocked()
        assert len(refused) == 5
        nursery.start_soon(one, 1001)
        await trio.testing.wait_all_tasks_blocked()
        assert len(refused) == 5
        foreign.may_answer.set()
    assert len(served) == MOST_OF_ONE_USER + 1
    assert await complete(wait, engine) == b"x"
