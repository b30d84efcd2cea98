"""The exception tree of envfs. Imports nothing, so that every layer can raise from it.

A message says what is wrong, `hint` what to do next; the command line prints both, a mount turns the
class into an errno (`envfs.fs.errno_table`), an API into AWS's error code. An `OSError` of the lower directory is not
wrapped: it keeps its errno. A broken invariant of our own is an ordinary Python exception outside this
tree and fails loudly.
"""

from __future__ import annotations

from typing import ClassVar


class EnvfsError(Exception):
    """Base of all errors that envfs raises on purpose."""

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class FormatError(EnvfsError):
    """Bytes that are not the structure they should be."""


class UnsupportedVersion(FormatError):
    """The right structure, in a version that this release does not know."""


class Truncated(FormatError):
    """Fewer bytes than the structure has."""


class IntegrityError(EnvfsError):
    """Well formed, but not authentic: damage or tampering. `block` is the block index, where there is one."""

    def __init__(self, message: str = "", *, hint: str = "", block: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.block = block


class ConfigError(EnvfsError):
    """Wrong settings or arguments; reaches the command line only."""


class KmsError(EnvfsError):
    """A refusal of the KMS. `code` is the name of AWS KMS's exception."""

    code: ClassVar[str] = "KMSInternalException"


class AccessDenied(KmsError):
    code = "AccessDeniedException"


class NotFound(KmsError):
    code = "NotFoundException"


class AlreadyExists(KmsError):
    code = "AlreadyExistsException"


class Disabled(KmsError):
    code = "DisabledException"


class InvalidState(KmsError):
    """The key's state does not permit the operation (pending deletion, pending import)."""

    code = "KMSInvalidStateException"


class KeyUnavailable(KmsError):
    """The key's material cannot be reached."""

    code = "KeyUnavailableException"


class KmsUnreachable(KeyUnavailable):
    """The foreign KMS that holds a key cannot be reached, or what answers there is no KMS."""


class KmsTimeout(KmsUnreachable):
    """The foreign KMS did not answer in time."""

    code = "DependencyTimeoutException"


class Throttling(KmsError):
    """Too many requests at once."""

    code = "ThrottlingException"


class InvalidCiphertext(KmsError):
    """Damaged ciphertext or another encryption context. The message is always empty, as in AWS KMS."""

    code = "InvalidCiphertextException"


class IncorrectKey(KmsError):
    code = "IncorrectKeyException"


class InvalidKeyUsage(KmsError):
    code = "InvalidKeyUsageException"


class Validation(KmsError):
    code = "ValidationException"


class MalformedPolicy(KmsError):
    code = "MalformedPolicyDocumentException"


class LimitExceeded(KmsError):
    code = "LimitExceededException"


class InvalidAliasName(KmsError):
    code = "InvalidAliasNameException"


class InvalidArn(KmsError):
    code = "InvalidArnException"


class UnsupportedOperation(KmsError):
    code = "UnsupportedOperationException"


class InvalidGrantToken(KmsError):
    code = "InvalidGrantTokenException"


class InvalidGrantId(KmsError):
    code = "InvalidGrantIdException"


class InvalidMarker(KmsError):
    code = "InvalidMarkerException"


class InvalidTag(KmsError):
    code = "TagException"


class IncorrectKeyMaterial(KmsError):
    """Other material than the key had before: what was encrypted under it could not be decrypted any more."""

    code = "IncorrectKeyMaterialException"


class ExpiredImportToken(KmsError):
    code = "ExpiredImportTokenException"


class InvalidImportToken(KmsError):
    code = "InvalidImportTokenException"


class InvalidSignature(KmsError):
    """The signature is not that of the message under the key."""

    code = "KMSInvalidSignatureException"


class InvalidMac(KmsError):
    code = "KMSInvalidMacException"


class DryRunOperation(KmsError):
    """The request would have succeeded, and asked not to be carried out."""

    code = "DryRunOperationException"


class Conflict(KmsError):
    """The resource is in another state than the operation needs, for the moment."""

    code = "ConflictException"


class CustomKeyStoreNotFound(KmsError):
    code = "CustomKeyStoreNotFoundException"


class Internal(KmsError):
    """The KMS itself failed: its store, or its audit trail."""
