"""Results and errors as JSON, between the daemon and the command line: over the readiness pipe and the control socket.

    {"ok": true, "result": {…}}          {"ok": false, "error": {"type": "AccessDenied", "message": …, "hint": …}}

`type` is the name of a class in `envfs.errors` or `envfs.service.errors`, or "OSError" (then with "errno"); anything
else is a defect of the daemon, whose particulars stay in its log.
"""

from __future__ import annotations

import os
from typing import Any

from envfs import errors
from envfs.errors import EnvfsError
from envfs.service import errors as service_errors

EXPECTED = (EnvfsError, OSError)


class RemoteFailure(Exception):
    """The daemon met an error of its own (a defect); its log has the traceback."""


def failure(error: BaseException) -> dict[str, Any]:
    """The response that tells of `error`."""
    content: dict[str, Any]
    if isinstance(error, EnvfsError):
        # The nearest class that the other side knows: subclasses of other modules travel as their base.
        known = next(base for base in type(error).__mro__ if base.__name__ in _TYPES)
        content = {"type": known.__name__, "message": error.message, "hint": error.hint}
    elif isinstance(error, OSError):
        text = error.strerror or str(error)
        text = f"{os.fsdecode(error.filename)}: {text}" if isinstance(error.filename, str | bytes) else text
        content = {"type": "OSError", "errno": error.errno or 0, "message": text}
    else:
        content = {"type": "RemoteFailure", "message": f"{type(error).__name__} in the daemon"}
    return {"ok": False, "error": content}


def open_response(response: object) -> dict[str, Any]:
    """The result in a response; raises the error that it tells of."""
    if not isinstance(response, dict):
        raise RemoteFailure("the daemon's answer is not an object")
    if response.get("ok") is True and isinstance(response.get("result"), dict):
        result: dict[str, Any] = response["result"]
        return result
    error = response.get("error")
    raise _rebuild(error if isinstance(error, dict) else {})


def _rebuild(error: dict[str, Any]) -> Exception:
    name, message, hint = (str(error.get(field, "")) for field in ("type", "message", "hint"))
    if name in _TYPES:
        return _TYPES[name](message, hint=hint)
    if name == "OSError":
        number = error.get("errno")
        return OSError(number if isinstance(number, int) else 0, message)
    return RemoteFailure(message or "the daemon's answer says nothing")


def _named_errors() -> dict[str, type[EnvfsError]]:
    return {
        name: value
        for module in (errors, service_errors)
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, EnvfsError)
    }


_TYPES = _named_errors()
