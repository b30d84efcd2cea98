"""Values in policies: literals, the wildcards `*` and `?`, and policy variables `${aws:username}`.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
What a variable stands for is always taken literally: a user called `*` is no wildcard.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from envfs.errors import MalformedPolicy
from envfs.kms.policy.condition_keys import Getter, find_condition_key
from envfs.kms.policy.request import CannotEvaluate, Request


class Wildcard(enum.Enum):
    """`*`: any run of characters, `?`: exactly one."""

    ANY = "*"
    ONE = "?"


@dataclass(frozen=True, slots=True)
class Variable:
    """`${name}` or `${name, 'default'}`."""

    name: str
    getter: Getter
    default: str | None

    def resolve(self, request: Request) -> str:
        value = self.getter(request)
        if isinstance(value, str):
            return value
        if value is None and self.default is not None:
            return self.default
        raise CannotEvaluate(f"the request has no value for ${{{self.name}}}")


Part: TypeAlias = str | Wildcard | Variable
StaticPart: TypeAlias = str | Wildcard
Matcher: TypeAlias = Callable[[str], bool]

_VARIABLE: Final = re.compile(r"\$\{([^}]*)\}")
_WITH_DEFAULT: Final = re.compile(r"\s*([^,]*?)\s*(?:,\s*'([^']*)'\s*)?")
_SPECIAL: Final = {"*", "?", "$"}


def parse_template(text: str, *, wildcards: bool, variables: bool) -> tuple[Part, ...]:
    """The parts of a policy value. `variables` are those of policy version 2012-10-17 only.

    MalformedPolicy for a variable that is not a known, single-valued condition key.
    """
    if not variables:
        return tuple(_split_wildcards(text, wildcards=wildcards))
    parts: list[Part] = []
    end = 0
    for match in _VARIABLE.finditer(text):
        parts += _split_wildcards(text[end : match.start()], wildcards=wildcards)
        end = match.end()
        inner = match.group(1)
        parts.append(inner if inner in _SPECIAL else _parse_variable(inner))
    parts += _split_wildcards(text[end:], wildcards=wildcards)
    return tuple(parts)


def _parse_variable(inner: str) -> Variable:
    match = _WITH_DEFAULT.fullmatch(inner)
    if match is None:
        raise MalformedPolicy(
            f"${{{inner}}} is no policy variable", hint="write ${aws:username} or ${aws:username, 'default'}"
        )
    name, default = match.groups()
    key = find_condition_key(name)
    if key.multi_valued:
        raise MalformedPolicy(f"${{{name}}} has several values and cannot be a policy variable")
    return Variable(name, key.getter, default)


def _split_wildcards(text: str, *, wildcards: bool) -> list[Part]:
    if not wildcards:
        return [text] if text else []
    return [Wildcard(piece) if piece in {"*", "?"} else piece for piece in re.split(r"([*?])", text) if piece]


def is_static(parts: Sequence[Part]) -> bool:
    """Whether no variable is among them."""
    return not any(isinstance(part, Variable) for part in parts)


def resolve_static(parts: Sequence[Part]) -> tuple[StaticPart, ...]:
    """The parts of a template in which there is no variable."""
    return tuple(part for part in parts if not isinstance(part, Variable))


def resolve(parts: Sequence[Part], request: Request) -> tuple[StaticPart, ...]:
    """The parts with what the variables stand for. CannotEvaluate if the request lacks one."""
    return tuple(part.resolve(request) if isinstance(part, Variable) else part for part in parts)


def resolve_text(parts: Sequence[Part], request: Request) -> str:
    """As `resolve`, for a template without wildcards."""
    return "".join(part for part in resolve(parts, request) if isinstance(part, str))


@lru_cache(maxsize=1024)
def compile_pattern(parts: tuple[StaticPart, ...], *, ignore_case: bool = False) -> Matcher:
    """Whether a text is what `parts` say, as a whole.

    Each run between two `*` is matched where it first fits and never again (an atomic group): a glob needs no
    backtracking, so the time is at most text × pattern, whoever wrote them.
    """
    flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
    runs: list[str] = [""]
    for part in parts:
        if part is Wildcard.ANY:
            runs.append("")
        else:
            runs[-1] += "." if part is Wildcard.ONE else re.escape(str(part))
    if len(runs) == 1:
        expression = runs[0]
    else:
        middle = "".join(f"(?>.*?{run})" for run in runs[1:-1] if run)
        expression = f"{runs[0]}{middle}.*{runs[-1]}"
    fullmatch = re.compile(expression, flags).fullmatch
    return lambda text: fullmatch(text) is not None
