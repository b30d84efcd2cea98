"""From the name of an operation and its JSON to the engine and back. No I/O, no HTTP: the command line uses it, too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, NamedTuple

from envfs.api.errors import UnknownOperation
from envfs.api.handlers import asymmetric, attributes, cryptographic, elsewhere, extensions, foreign, grants, iam, keys
from envfs.api.handlers.common import Handler
from envfs.api.shapes import EXTENSION_OPERATIONS, IAM_OPERATIONS, OPERATIONS
from envfs.api.validation import Structure, read_request
from envfs.errors import UnsupportedOperation
from envfs.kms.engine import Engine
from envfs.kms.model import Principal, RequestFacts

KMS_PREFIX: Final = "TrentService"  # AWS's name for it
IAM_PREFIX: Final = "EnvfsIam"
EXTENSION_PREFIX: Final = "EnvfsKms"


class _Operation(NamedTuple):
    input: Structure
    handler: Handler


def _table() -> dict[str, _Operation]:
    kms = {
        **keys.HANDLERS,
        **attributes.HANDLERS,
        **cryptographic.HANDLERS,
        **asymmetric.HANDLERS,
        **grants.HANDLERS,
        **elsewhere.HANDLERS,
    }
    services = (
        (KMS_PREFIX, OPERATIONS, kms),
        (IAM_PREFIX, IAM_OPERATIONS, iam.HANDLERS),
        (EXTENSION_PREFIX, EXTENSION_OPERATIONS, {**extensions.HANDLERS, **foreign.HANDLERS}),
    )
    return {
        f"{prefix}.{name}": _Operation(shape, handlers[name])
        for prefix, shapes, handlers in services
        for name, shape in shapes.items()
    }


TARGETS: Final = _table()

# What takes long, for the server: it then does not run where other requests wait for it.
_SLOW: Final = frozenset(
    {
        f"{KMS_PREFIX}.GetKeyLastUsage",
        f"{KMS_PREFIX}.GetParametersForImport",
        f"{KMS_PREFIX}.ImportKeyMaterial",  # an RSA key's primes are checked
        f"{KMS_PREFIX}.ListRetirableGrants",  # the grants of all keys are read
        f"{EXTENSION_PREFIX}.OpenBlocks",
        f"{EXTENSION_PREFIX}.QueryAudit",
        f"{EXTENSION_PREFIX}.CheckpointAudit",
        f"{EXTENSION_PREFIX}.VerifyAudit",
        f"{EXTENSION_PREFIX}.VerifyStore",
    }
)
_SLOW_WITH_RSA: Final = {
    f"{KMS_PREFIX}.CreateKey": ("KeySpec", "CustomerMasterKeySpec"),
    f"{KMS_PREFIX}.GenerateDataKeyPair": ("KeyPairSpec",),
    f"{KMS_PREFIX}.GenerateDataKeyPairWithoutPlaintext": ("KeyPairSpec",),
}


class Api:
    """All operations, on one engine, and like it used from one thread at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def call(self, principal: Principal, target: str, request: object, facts: RequestFacts) -> dict[str, Any]:
        """The answer of `target` (`TrentService.Decrypt`) as JSON has it: bytes in base64, times in seconds since 1970.

        `facts` is what is known beside the request, whose GrantTokens and DryRun are added to it. Raises EnvfsErrors.
        """
        operation = TARGETS.get(target)
        if operation is None:
            raise UnknownOperation(f"there is no operation {target[:128]!r}")
        members = read_request(operation.input, request)
        if "Recipient" in members:
            raise UnsupportedOperation("attestation documents of Nitro enclaves cannot be verified here")
        tokens, dry_run = members.get("GrantTokens", ()), members.get("DryRun", False)
        if tokens or dry_run:
            facts = replace(facts, grant_tokens=tokens, dry_run=dry_run)
        return operation.handler(self._engine, principal, members, facts)


def is_slow(target: str, request: object) -> bool:
    """Whether the call may take longer than others should wait: it makes RSA keys, or reads whole files or tables."""
    if target in _SLOW:
        return True
    members = _SLOW_WITH_RSA.get(target)
    if members is None or not isinstance(request, dict):
        return False
    return any(str(request.get(name, "")).startswith("RSA") for name in members)
