"""TagResource, UntagResource and ListResourceTags: names and values that an administrator gives a key.

https://docs.aws.amazon.com/kms/latest/developerguide/tagging-keys.html
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from envfs.errors import InvalidTag, LimitExceeded
from envfs.kms.model import NO_FACTS, Principal, RequestFacts, ResourceTag
from envfs.kms.operations.on_key import OnKey
from envfs.kms.paging import check_limit, cut, make_marker, read_marker
from envfs.kms.policy.request import ConditionValue
from envfs.kms.schema import TAGS, TagRow
from envfs.kms.sealed_store import Transaction

MAX_TAGS: Final = 50
MAX_NAME: Final = 128  # characters
MAX_VALUE: Final = 256
LARGEST_PAGE: Final = 50

_RESERVED: Final = "aws:"
_PUNCTUATION: Final = frozenset("_.:/=+-@")


class TagOperations(OnKey):
    """At most 50 tags for each key, of which no two differ in case only."""

    def tag_resource(
        self, principal: Principal, key_id: str, tags: Mapping[str, str], facts: RequestFacts = NO_FACTS
    ) -> None:
        """Adds `tags` to the key; a tag that it has gets the new value. InvalidTag or LimitExceeded for what cannot be
        a tag.
        """
        extra = tag_facts(tags)
        parameters = {"tags": recorded_tags(tags)}
        with self._on_key("TagResource", principal, key_id, facts, parameters, extra, changes=True) as (call, key):
            check_tags(tags)
            with self._change(call) as transaction:
                self._current(call, key)
                self._put_tags(transaction, key.row.key_id, tags)

    def untag_resource(
        self, principal: Principal, key_id: str, names: Sequence[str], facts: RequestFacts = NO_FACTS
    ) -> None:
        """Takes the tags called `names` off the key; those that it does not have do not matter."""
        extra: Mapping[str, ConditionValue] = {"aws:tagkeys": tuple(names)}
        parameters = {"tagKeys": list(names)}
        with self._on_key("UntagResource", principal, key_id, facts, parameters, extra, changes=True) as (call, key):
            if len(names) > MAX_TAGS:
                raise InvalidTag(f"a key has at most {MAX_TAGS} tags, and {len(names)} are to be taken off")
            for name in names:
                _check_name(name)
            with self._change(call) as transaction:
                self._current(call, key)
                for name in names:
                    transaction.delete(TAGS, key.row.key_id, name)

    def list_resource_tags(
        self,
        principal: Principal,
        key_id: str,
        *,
        limit: int = LARGEST_PAGE,
        marker: str | None = None,
        facts: RequestFacts = NO_FACTS,
    ) -> tuple[tuple[ResourceTag, ...], str | None]:
        """The tags of the key, by name; `limit` is at most 50."""
        with self._on_key("ListResourceTags", principal, key_id, facts) as (_, key):
            check_limit(limit, LARGEST_PAGE)
            after = read_marker(marker, str)
            start = None if after is None else (key.row.key_id, *after)
            rows, more = cut(self._store.page(TAGS, start, limit + 1, key_id=key.row.key_id), limit)
            return tuple(ResourceTag(row.name, row.value) for row in rows), make_marker(rows[-1].name) if more else None

    def _put_tags(self, transaction: Transaction, key_id: bytes, tags: Mapping[str, str]) -> None:
        names = {row.name for row in self._store.find(TAGS, key_id=key_id)} | tags.keys()
        if len(names) > MAX_TAGS:
            raise LimitExceeded(f"a key has at most {MAX_TAGS} tags", hint="take some off first")
        _check_distinct(names)
        for name, value in tags.items():
            transaction.put(TAGS, TagRow(key_id, name, value))


def check_tags(tags: Mapping[str, str]) -> None:
    """InvalidTag unless each can be a tag: 1 to 128 characters and at most 256, letters, digits, spaces and `_.:/=+-@`,
    not beginning with `aws:`. LimitExceeded for more than 50.
    """
    if len(tags) > MAX_TAGS:
        raise LimitExceeded(f"a key has at most {MAX_TAGS} tags")
    for name, value in tags.items():
        _check_name(name)
        if len(value) > MAX_VALUE or not _is_text(value):
            raise InvalidTag(
                f"{value!r} cannot be the value of a tag",
                hint=f"use at most {MAX_VALUE} letters, digits, spaces and _.:/=+-@",
            )
    _check_distinct(tags.keys())


def tag_facts(tags: Mapping[str, str]) -> dict[str, ConditionValue]:
    """aws:RequestTag/… and aws:TagKeys of a request that has `tags`."""
    facts: dict[str, ConditionValue] = {f"aws:requesttag/{name.lower()}": value for name, value in tags.items()}
    if tags:
        facts["aws:tagkeys"] = tuple(tags)
    return facts


def recorded_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """As CloudTrail has them in requestParameters."""
    return [{"tagKey": name, "tagValue": value} for name, value in tags.items()]


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= MAX_NAME or not _is_text(name):
        raise InvalidTag(
            f"{name!r} cannot be the name of a tag", hint=f"use 1 to {MAX_NAME} letters, digits, spaces and _.:/=+-@"
        )
    if name.lower().startswith(_RESERVED):
        raise InvalidTag(f"{name!r} cannot be the name of a tag: the prefix {_RESERVED} is reserved")


def _check_distinct(names: Collection[str]) -> None:
    # Condition keys (aws:ResourceTag/Team) are compared without case: two such tags would make a policy ambiguous.
    if len({name.lower() for name in names}) < len(names):
        raise InvalidTag("two tags of a key cannot differ in case only", hint="use one spelling")


def _is_text(text: str) -> bool:
    return all(unicodedata.category(character)[0] in "LNZ" or character in _PUNCTUATION for character in text)
