"""Whether answers are what the service model of AWS's own SDK says: members, types, limits, enums, error codes."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

# The errors that every service has: https://docs.aws.amazon.com/kms/latest/APIReference/CommonErrors.html, and two that
# the documentation of operations has, and the model has not.
COMMON_ERRORS = {
    "AccessDeniedException",
    "IncompleteSignatureException",
    "InternalFailure",
    "InvalidSignatureException",
    "MalformedHttpRequestException",
    "MissingAuthenticationTokenException",
    "RequestEntityTooLargeException",
    "RequestTimeoutException",
    "SerializationException",
    "ThrottlingException",
    "UnknownOperationException",
    "UnrecognizedClientException",
    "ValidationException",
}
SERVER_ERRORS = {"KMSInternalException", "KeyUnavailableException", "InternalFailure", "DependencyTimeoutException"}


def check_answers(client: Any) -> None:
    """From now on every answer that `client` gets is checked."""
    client.meta.events.register("after-call.kms", _check)


def _check(model: Any, http_response: Any, **_: Any) -> None:
    headers = http_response.headers
    assert headers["Content-Type"] == "application/x-amz-json-1.1"
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", headers["x-amzn-RequestId"])
    if http_response.status_code == 200:
        answer = json.loads(http_response.content) if http_response.content else {}
        if model.output_shape is None:
            assert answer == {}, f"{model.name} answers nothing, not {answer}"
        else:
            check_shape(model.output_shape, answer, model.name)
        return
    answer = json.loads(http_response.content)
    assert set(answer) == {"__type", "message"}
    code = answer["__type"]
    assert http_response.status_code == (500 if code in SERVER_ERRORS else 400), answer
    of_operation = {shape.name for shape in model.error_shapes}
    of_service = set(model.service_model.shape_names)
    assert code in of_operation | COMMON_ERRORS or code in of_service, f"{model.name} does not raise {code}"


def check_shape(shape: Any, value: Any, where: str) -> None:
    """AssertionError unless `value`, as JSON has it, is one of `shape`."""
    kind = _JSON_TYPES[shape.type_name]
    assert type(value) is kind, f"{where}: {value!r}"
    _CHECKS.get(shape.type_name, _check_nothing)(shape, value, where)


def _check_structure(shape: Any, value: Any, where: str) -> None:
    assert value.keys() <= shape.members.keys(), f"{where}: {value.keys() - shape.members.keys()}"
    assert set(shape.required_members) <= value.keys(), where
    for name, one in value.items():
        check_shape(shape.members[name], one, f"{where}.{name}")


def _check_list(shape: Any, value: Any, where: str) -> None:
    _check_limits(shape.metadata, len(value), where)
    for one in value:
        check_shape(shape.member, one, f"{where}[]")


def _check_map(shape: Any, value: Any, where: str) -> None:
    for name, one in value.items():
        check_shape(shape.key, name, f"{where} key")
        check_shape(shape.value, one, f"{where}.{name}")


def _check_string(shape: Any, value: Any, where: str) -> None:
    _check_limits(shape.metadata, len(value), where)
    assert not shape.enum or value in shape.enum, f"{where}: {value}"
    pattern = shape.metadata.get("pattern")
    assert pattern is None or re.fullmatch(pattern, value), f"{where}: {value}"


def _check_blob(shape: Any, value: Any, where: str) -> None:
    _check_limits(shape.metadata, len(base64.b64decode(value, validate=True)), where)


def _check_integer(shape: Any, value: Any, where: str) -> None:
    _check_limits(shape.metadata, value, where)


def _check_nothing(_shape: Any, _value: Any, _where: str) -> None:
    """The type is all there is to it."""


_JSON_TYPES = {
    "structure": dict, "list": list, "map": dict, "string": str, "blob": str, "integer": int, "boolean": bool,
    "timestamp": float,
}  # fmt: skip
_CHECKS = {
    "structure": _check_structure,
    "list": _check_list,
    "map": _check_map,
    "string": _check_string,
    "blob": _check_blob,
    "integer": _check_integer,
}


def _check_limits(limits: dict[str, Any], size: int, where: str) -> None:
    assert limits.get("min", 0) <= size <= limits.get("max", size), f"{where}: {size}"
