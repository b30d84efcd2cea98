"""From JSON to a request's members, checked: types first (SerializationException), then limits (ValidationException).

A value is read into what the engine takes: base64 becomes bytes, a time seconds since 1970. The messages are worded as
AWS words them, whose clients show them to people and some of whose users match them.
"""

from __future__ import annotations

import binascii
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from envfs.api.errors import Serialization
from envfs.errors import Validation

_SHOWN: Final = 256  # characters of a value that an error repeats
_JSON_TYPES: Final = {
    bool: "FALSE_VALUE",
    str: "STRING_VALUE",
    int: "NUMBER_VALUE",
    float: "DECIMAL_VALUE",
    dict: "START_OBJECT",
    list: "START_ARRAY",
}
_LAST_SECOND: Final = 253_402_300_799  # of the year 9999


class Kind(Protocol):
    """What a member can be."""

    def read(self, value: Any, path: str, problems: list[str]) -> Any:
        """The value for the engine. Adds to `problems` what is wrong with it; Serialization for another type."""


@dataclass(frozen=True, slots=True)
class Text:
    """A string of `minimum` to `maximum` characters, which `pattern` matches whole, or which is one of `enum`."""

    minimum: int = 0
    maximum: int | None = None
    pattern: str = ""
    enum: tuple[str, ...] = ()
    secret: bool = False
    compiled: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Java's \w, which AWS means, is ASCII.
        compiled = re.compile(self.pattern, re.ASCII) if self.pattern else None
        object.__setattr__(self, "compiled", compiled)

    def read(self, value: Any, path: str, problems: list[str]) -> str:
        if type(value) is not str:
            raise _wrong_type(value, "a String")
        if not value.isascii():
            _check_unicode(value)
        if self.enum:
            if value not in self.enum:
                self._problem(value, path, problems, f"satisfy enum value set: [{', '.join(self.enum)}]")
            return value
        _check_length(len(value), self.minimum, self.maximum, self._shown(value), path, problems)
        if self.compiled is not None and self.compiled.fullmatch(value) is None:
            self._problem(value, path, problems, f"satisfy regular expression pattern: {self.pattern}")
        return value

    def _problem(self, value: str, path: str, problems: list[str], must: str) -> None:
        problems.append(_problem(self._shown(value), path, must))

    def _shown(self, value: str) -> str:
        return "" if self.secret else f"'{value[:_SHOWN]}'"


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes, in base64 (RFC 4648 section 4)."""

    minimum: int
    maximum: int

    def read(self, value: Any, path: str, problems: list[str]) -> bytes:
        if type(value) is not str:
            raise _wrong_type(value, "a Blob")
        try:
            raw = binascii.a2b_base64(value.encode("ascii"), strict_mode=True)
        except (binascii.Error, UnicodeEncodeError):
            raise Serialization(f"{path} is not valid base64") from None
        _check_length(len(raw), self.minimum, self.maximum, "", path, problems)
        return raw


@dataclass(frozen=True, slots=True)
class Integer:
    minimum: int
    maximum: int

    def read(self, value: Any, path: str, problems: list[str]) -> int:
        if type(value) is not int:
            raise _wrong_type(value, "an Integer")
        if value < self.minimum:
            problems.append(_problem(f"'{value}'", path, f"have value greater than or equal to {self.minimum}"))
        elif value > self.maximum:
            problems.append(_problem(f"'{value}'", path, f"have value less than or equal to {self.maximum}"))
        return value


@dataclass(frozen=True, slots=True)
class Boolean:
    def read(self, value: Any, path: str, problems: list[str]) -> bool:  # noqa: ARG002 - as the others
        if type(value) is not bool:
            raise _wrong_type(value, "a Boolean")
        return value


@dataclass(frozen=True, slots=True)
class Timestamp:
    """Seconds since 1970, with a fraction or without."""

    def read(self, value: Any, path: str, problems: list[str]) -> float:  # noqa: ARG002 - as the others
        if type(value) not in {int, float}:
            raise _wrong_type(value, "a Timestamp")
        if not math.isfinite(value) or not 0 <= value <= _LAST_SECOND:
            raise Serialization(f"{path} is no time between 1970 and 9999")
        return float(value)


@dataclass(frozen=True, slots=True)
class ListOf:
    member: Kind
    minimum: int = 0
    maximum: int | None = None

    def read(self, value: Any, path: str, problems: list[str]) -> tuple[Any, ...]:
        if type(value) is not list:
            raise _wrong_type(value, "a List")
        _check_length(len(value), self.minimum, self.maximum, "", path, problems)
        return tuple(
            self.member.read(one, f"{path}.{number}.member", problems) for number, one in enumerate(value, start=1)
        )


@dataclass(frozen=True, slots=True)
class StringMap:
    """Strings by strings."""

    def read(self, value: Any, path: str, problems: list[str]) -> dict[str, str]:  # noqa: ARG002 - as the others
        if type(value) is not dict:
            raise _wrong_type(value, "a Map")
        for name, text in value.items():
            if type(text) is not str:
                raise _wrong_type(text, "a String")
            if not (name.isascii() and text.isascii()):
                _check_unicode(name)
                _check_unicode(text)
        return value


@dataclass(frozen=True, slots=True)
class Structure:
    members: Mapping[str, Kind]
    required: frozenset[str] = frozenset()

    def read(self, value: Any, path: str, problems: list[str]) -> dict[str, Any]:
        """Members that the structure does not have are passed over, and null is nothing, as AWS has it."""
        if type(value) is not dict:
            raise _wrong_type(value, "a Structure")
        read = {}
        members = self.members
        for name, one in value.items():
            kind = members.get(name)
            if kind is not None and one is not None:
                read[name] = kind.read(one, _path(path, name), problems)
        if not self.required <= read.keys():
            missing = [name for name in members if name in self.required and name not in read]
            problems += [_problem("null", _path(path, name), "not be null") for name in missing]
        return read


def read_request(structure: Structure, request: object) -> dict[str, Any]:
    """The members of `request`. Serialization, or Validation with all that is wrong."""
    problems: list[str] = []
    read = structure.read(request, "", problems)
    if problems:
        plural = "" if len(problems) == 1 else "s"
        raise Validation(f"{len(problems)} validation error{plural} detected: {'; '.join(problems)}")
    return read


def _path(path: str, name: str) -> str:
    """`KeyId` in AWS's messages: `keyId`, below its structure."""
    own = name[:1].lower() + name[1:]
    return f"{path}.{own}" if path else own


def _problem(shown: str, path: str, must: str) -> str:
    value = f"Value {shown} at" if shown else "Value at"
    return f"{value} '{path}' failed to satisfy constraint: Member must {must}"


def _check_length(length: int, minimum: int, maximum: int | None, shown: str, path: str, problems: list[str]) -> None:
    if length < minimum:
        problems.append(_problem(shown, path, f"have length greater than or equal to {minimum}"))
    elif maximum is not None and length > maximum:
        problems.append(_problem(shown, path, f"have length less than or equal to {maximum}"))


def _check_unicode(text: str) -> None:
    """JSON can write half a surrogate pair, which is no character and has no UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise Serialization("a string is not valid Unicode") from None


def _wrong_type(value: object, wanted: str) -> Serialization:
    found = "TRUE_VALUE" if value is True else _JSON_TYPES.get(type(value), "NULL_VALUE")
    return Serialization(f"{found} can not be converted to {wanted}")
