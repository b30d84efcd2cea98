"""Two processes that change a sealed store by turns, against a dictionary."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from envfs.kms.schema import ALIASES
from tests.unit.kms.stores import alias, create, key_id, opened

if TYPE_CHECKING:
    from envfs.kms.sealed_store import SealedStore

# Few names and keys, so that rows are replaced, move and vanish. An alias of no key is deleted.
Change: TypeAlias = tuple[str, int]
CHANGES = st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 5))
TRANSACTIONS = st.tuples(st.booleans(), st.booleans(), st.lists(CHANGES, max_size=4))
GONE = 0


class Undone(Exception):
    pass


@settings(deadline=None, max_examples=40)
@given(st.lists(TRANSACTIONS, max_size=12))
def test_two_processes_see_what_was_committed(transactions: list[tuple[bool, bool, list[Change]]]) -> None:
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        path = Path(directory) / "kms.db"
        create(path)
        stores = [stack.enter_context(opened(path)) for _ in range(2)]
        model: dict[str, int] = {}
        for by_second, is_undone, changes in transactions:
            trial = dict(model)
            try:
                with stores[by_second].transaction() as transaction:
                    for name, of in changes:
                        if of == GONE:
                            transaction.delete(ALIASES, f"alias/{name}")
                            trial.pop(name, None)
                        else:
                            transaction.put(ALIASES, alias(name, of))
                            trial[name] = of
                    check(stores[by_second], trial)
                    if is_undone:
                        raise Undone
                model = trial
            except Undone:
                pass
            for store in stores:
                check(store, model)
        assert stores[0].verify_all() == []


def check(store: SealedStore, model: dict[str, int]) -> None:
    rows = [alias(name, of) for name, of in sorted(model.items())]
    for name in "abcdefgh":
        assert store.get(ALIASES, f"alias/{name}") == (alias(name, model[name]) if name in model else None)
    for of in range(1, 6):
        assert store.find(ALIASES, key_id=key_id(of)) == [row for row in rows if row.key_id == key_id(of)]
    assert store.page(ALIASES, ("alias/c",), 2) == [row for row in rows if row.name > "alias/c"][:2]
    assert store.find(ALIASES) == rows
