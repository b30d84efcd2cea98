"""`NAME=VALUE` on the command line: encryption contexts and tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_Function = TypeVar("_Function", bound="Callable[..., Any]")


def _parse(context: click.Context, parameter: click.Parameter, values: Iterable[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", context, parameter)
        if name in pairs:
            raise click.BadParameter(f"{name!r} is given twice", context, parameter)
        pairs[name] = value
    return pairs


def pairs_option(*names: str, help: str) -> Callable[[_Function], _Function]:  # noqa: A002  (click's own word)
    """An option that may be repeated; the command gets a dictionary."""
    return click.option(*names, multiple=True, metavar="NAME=VALUE", callback=_parse, help=f"{help} May be repeated.")


def pairs_argument(name: str, *, required: bool = True) -> Callable[[_Function], _Function]:
    """Pairs as arguments, one or more if `required`; the command gets a dictionary."""
    return click.argument(name, nargs=-1, required=required, metavar="NAME=VALUE...", callback=_parse)


context_option = pairs_option("--context", help="The encryption context, which decrypting needs again.")
