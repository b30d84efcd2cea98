"""STS, as far as AWS's tools ask for it: GetCallerIdentity, in the query protocol (a form in, XML out).

https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from envfs.api.errors import MalformedRequest, UnknownOperation, code_of, status_of

if TYPE_CHECKING:
    from envfs.errors import EnvfsError
    from envfs.kms.model import Principal

FORM: Final = b"application/x-www-form-urlencoded"
XML: Final = b"text/xml"
SERVICE: Final = "sts"
_NAMESPACE: Final = "https://sts.amazonaws.com/doc/2011-06-15/"
_MAX_FIELDS: Final = 16
_FORBIDDEN: Final = 403

# What the query protocol calls the errors that all services have, and their status.
_CODES: Final = {
    "MissingAuthenticationTokenException": ("MissingAuthenticationToken", _FORBIDDEN),
    "IncompleteSignatureException": ("IncompleteSignature", 400),
    "InvalidSignatureException": ("SignatureDoesNotMatch", _FORBIDDEN),
    "UnrecognizedClientException": ("InvalidClientTokenId", _FORBIDDEN),
    "AccessDeniedException": ("AccessDenied", _FORBIDDEN),
    "UnknownOperationException": ("InvalidAction", 400),
    "ThrottlingException": ("Throttling", 400),
}


def check_action(body: bytes) -> None:
    """UnknownOperation unless the form asks for GetCallerIdentity."""
    try:
        fields = parse_qs(body.decode("ascii"), strict_parsing=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise MalformedRequest("the body is no form") from None
    actions = fields.get("Action", [])
    if actions != ["GetCallerIdentity"]:
        named = actions[0][:128] if actions else ""
        raise UnknownOperation(f"Could not find operation {named} for version 2011-06-15")


def caller_identity(principal: Principal, account_id: str, request_id: str) -> bytes:
    """The answer. Nobody needs a permission to learn who he is."""
    return (
        f'<GetCallerIdentityResponse xmlns="{_NAMESPACE}"><GetCallerIdentityResult>'
        f"<Arn>{escape(principal.arn)}</Arn><UserId>{principal.uid}</UserId><Account>{account_id}</Account>"
        f"</GetCallerIdentityResult><ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>"
        "</GetCallerIdentityResponse>\n"
    ).encode("ascii", "xmlcharrefreplace")


def error(problem: EnvfsError, request_id: str) -> tuple[int, bytes]:
    """Status and XML of an error."""
    code, status = _CODES.get(code_of(problem), (code_of(problem), status_of(problem)))
    kind = "Sender" if status < 500 else "Receiver"
    text = (
        f'<ErrorResponse xmlns="{_NAMESPACE}"><Error><Type>{kind}</Type><Code>{code}</Code>'
        f"<Message>{escape(problem.message)}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>\n"
    )
    return status, text.encode("ascii", "xmlcharrefreplace")
