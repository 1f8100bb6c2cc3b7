"""Errors as the OpenAI API shapes them. Their texts name no server, no path and no key; those go to the log.

400: not a request at all. 413: larger than a limit. 422: a request that asks for what cannot be done. 429 and 503, each
with Retry-After: come back later. 502 and 504: the engine gave nothing usable, or not in time.
"""

from __future__ import annotations

import logging
from typing import Any

from insightv.errors import ModelError, StopRun
from insightv.inputs.image_error import ImageError
from insightv.redact import Redactor

log = logging.getLogger("insightv.server")
_redactor = Redactor()

_MODEL_ERRORS: dict[str, tuple[int, str]] = {
    "timeout": (504, "the answer did not come in time"),
    "deadline": (504, "the reasoning did not come in time"),
    "too_long": (422, "the question is too long for the model"),
    "bad_request": (422, "the model refuses this request"),
    "agent_error": (500, "an agent failed; the server's log says why"),
    "oom": (503, "the engine has too little memory for this request"),
    "worker_crash": (503, "the engine failed on this request"),
    "connection": (503, "the engine cannot be reached"),
    "server_error": (503, "the engine failed"),
    "rate_limited": (503, "the engine takes no more requests at present"),
}
RETRY_AFTER = {"Retry-After": "30"}
"""Of an engine nobody knows when it will be back."""


class ApiError(Exception):
    """An error as it is sent to a client. `code` is short and stable; `param` names the field that is wrong."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers: dict[str, str] = headers or {}

    @property
    def body(self) -> dict[str, Any]:
        """The error as JSON."""
        kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def unavailable(text: str) -> ApiError:
    """The error for a client while nothing can be asked."""
    return ApiError(503, "engine_unavailable", text, headers=RETRY_AFTER)


def api_error(error: Exception) -> ApiError:
    """The error as it is sent to a client; what is left out of it is logged."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ImageError):
        status = 413 if error.code.startswith("too_large") else 422
        return ApiError(status, error.code, str(error), param="messages")
    if isinstance(error, ModelError):
        log.warning("model error %s: %s", error.code, _redactor.clean(str(error)))
        status, text = _MODEL_ERRORS.get(error.code, (502, "the engine gave no answer that can be used"))
        return ApiError(status, error.code, text, headers=RETRY_AFTER if status == 503 else None)
    if isinstance(error, StopRun):
        log.error("%s: %s", type(error).__name__, _redactor.clean(str(error)))
        return unavailable("the engine cannot be asked at present; the server's log says why")
    log.error("a fault inside the server", exc_info=error)
    return ApiError(500, "internal_error", "a fault inside the server")
