"""Where a foreign key is: what its endpoint, its region and the credentials for it are."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import asdict, dataclass
from typing import Final, Self
from urllib.parse import urlsplit

from envfs.errors import FormatError, Validation

_MAX_TEXT: Final = 2048


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A key of another KMS. `key`: its id, ARN or alias there. `endpoint`: a URL, empty for AWS's own of `region`.
    `profile`: of AWS's shared configuration files, empty for the default. No secret is in it.
    """

    key: str
    region: str
    endpoint: str = ""
    profile: str = ""

    def check(self) -> None:
        """Validation for what can be no such place."""
        for name, text in asdict(self).items():
            if len(text) > _MAX_TEXT or any(ord(character) < 0x21 or ord(character) > 0x7E for character in text):
                raise Validation(f"foreign key: the {name} has to be printable ASCII without spaces")
        if not self.key or not self.region:
            raise Validation("foreign key: key and region are needed", hint="--foreign ARN --region REGION")
        if self.endpoint:
            _check_url(self.endpoint)

    def serialise(self) -> bytes:
        """JSON, the same bytes for the same place."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode("ascii")

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """What `serialise` wrote. FormatError."""
        try:
            return cls(**json.loads(raw))
        except (ValueError, TypeError):
            raise FormatError("not the configuration of a foreign key") from None


def _check_url(url: str) -> None:
    no_url = Validation(f"{url!r} is no URL of an endpoint", hint="write https://HOST or https://HOST:PORT")
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        raise no_url from None
    if not is_url or parts.username or parts.query or parts.fragment:
        raise no_url
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise Validation(f"{url!r}: requests over plain HTTP can be read on the way", hint="use https")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
