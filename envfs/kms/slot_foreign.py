"""Root-key slots behind a foreign KMS: an AWS-KMS-compatible endpoint wraps the key-encryption key.

boto3 finds the credentials, as everywhere: environment, ~/.aws, instance roles. It is loaded here alone, and only when
such a slot is made or opened.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import ipaddress
import json
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from envfs.crypto.kdf import KEY_SIZE
from envfs.crypto.secret import Secret
from envfs.errors import ConfigError, FormatError

CONNECT_TIMEOUT: Final = 3.0  # seconds, for each of ATTEMPTS
READ_TIMEOUT: Final = 5.0
ATTEMPTS: Final = 2


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A key of a foreign KMS. `endpoint`: its URL; empty for AWS's own in `region`. `key`: id, ARN or alias."""

    endpoint: str
    region: str
    key: str


@dataclass(frozen=True, slots=True)
class ForeignParameters:
    """What stands in a slot: the key, and the key-encryption key encrypted under it."""

    place: ForeignKey
    ciphertext: bytes

    def encode(self) -> bytes:
        return json.dumps(
            {
                "ciphertext": base64.b64encode(self.ciphertext).decode("ascii"),
                "endpoint": self.place.endpoint,
                "key": self.place.key,
                "region": self.place.region,
            },
            separators=(",", ":"),
        ).encode("utf-8")

    @classmethod
    def parse(cls, parameters: bytes) -> ForeignParameters:
        """FormatError unless it is what `encode` makes."""
        try:
            found = json.loads(parameters)
            texts = [found[name] for name in ("ciphertext", "endpoint", "key", "region")]
            if not all(isinstance(text, str) for text in texts):
                raise TypeError
            ciphertext = base64.b64decode(texts[0], validate=True)
        except (ValueError, TypeError, KeyError, binascii.Error, RecursionError):
            raise FormatError("the parameters of an aws-kms slot are damaged") from None
        return cls(ForeignKey(texts[1], texts[3], texts[2]), ciphertext)


def encryption_context(store_id: bytes, slot_id: bytes) -> dict[str, str]:
    """What the foreign KMS's policies and audit trail see."""
    return {"envfs:kms": store_id.hex(), "envfs:slot": slot_id.hex()}


def wrap_key(place: ForeignKey, key: Secret, context: dict[str, str]) -> ForeignParameters:
    """`key` encrypted by the foreign KMS. ConfigError if it cannot be reached or refuses."""
    answer = _call(place, "encrypt", KeyId=place.key, Plaintext=bytes(key.expose()), EncryptionContext=context)
    # The ARN, not an alias that may be moved: Decrypt is asked with it, and refuses what is under another key.
    named = ForeignKey(place.endpoint, place.region, str(answer["KeyId"]))
    return ForeignParameters(named, bytes(answer["CiphertextBlob"]))


def unwrap_key(parameters: ForeignParameters, context: dict[str, str]) -> Secret:
    """The key-encryption key. ConfigError if the KMS cannot be reached or refuses; FormatError if it is no key."""
    place = parameters.place
    answer = _call(place, "decrypt", KeyId=place.key, CiphertextBlob=parameters.ciphertext, EncryptionContext=context)
    plain = bytearray(answer["Plaintext"])
    if len(plain) != KEY_SIZE:
        raise FormatError(f"{place.endpoint or 'AWS KMS'} decrypts the key of a slot to {len(plain)} bytes")
    return Secret.adopt(plain)


def check_endpoint(endpoint: str) -> None:
    """ConfigError unless what is sent to `endpoint` is encrypted, or stays on this host: the answer is a key."""
    parts = urlsplit(endpoint)
    if not endpoint or (parts.scheme == "https" and parts.hostname):
        return
    if parts.scheme == "http" and _is_loopback(parts.hostname or ""):
        return
    raise ConfigError(
        f"{endpoint!r} is no endpoint for keys",
        hint="write https://HOST[:PORT]; http:// is for this host alone (127.0.0.1, [::1], localhost)",
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _call(place: ForeignKey, operation: str, **members: Any) -> dict[str, Any]:
    check_endpoint(place.endpoint)
    try:
        boto3: Any = importlib.import_module("boto3")
        config: Any = importlib.import_module("botocore.config")
        exceptions: Any = importlib.import_module("botocore.exceptions")
    except ImportError:
        raise ConfigError(
            "boto3 is not installed, by which a foreign KMS is asked",
            hint="pip install 'envfs[aws]', or pip install boto3",
        ) from None
    where = place.endpoint or f"AWS KMS in {place.region}"
    try:
        client = boto3.client(
            "kms",
            region_name=place.region,
            endpoint_url=place.endpoint or None,
            config=config.Config(
                connect_timeout=CONNECT_TIMEOUT,
                read_timeout=READ_TIMEOUT,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            ),
        )
        answer: dict[str, Any] = getattr(client, operation)(**members)
    except exceptions.NoCredentialsError:
        raise ConfigError(
            f"there are no credentials for {where}",
            hint="AWS_ACCESS_KEY_ID, AWS_SHARED_CREDENTIALS_FILE, AWS_PROFILE …",
        ) from None
    except exceptions.ClientError as error:
        raise ConfigError(
            f"{where} refuses to {operation}: {error}", hint=f"see the policy of {place.key} there"
        ) from None
    except (exceptions.BotoCoreError, OSError, ValueError) as error:
        raise ConfigError(f"{where} cannot be asked: {error}", hint="try again when it can be reached") from None
    return answer
