"""Errors as the OpenAI API shapes them. Their texts name no server, no path and no key; those go to the log."""

from __future__ import annotations

import logging
from typing import Any

from insightv.errors import ModelError, StopRun
from insightv.image_sources import ImageError
from insightv.redact import Redactor

log = logging.getLogger("insightv.server")
_redactor = Redactor()

_MODEL_ERRORS: dict[str, tuple[int, str]] = {
    "timeout": (504, "the answer did not come in time"),
    "too_long": (400, "the question is too long for the model"),
    "bad_request": (400, "the model refuses this request"),
    "oom": (503, "the engine has too little memory for this request"),
    "worker_crash": (503, "the engine failed on this request"),
    "connection": (502, "the engine cannot be reached"),
    "server_error": (502, "the engine failed"),
}


class ApiError(Exception):
    """An error that a client is told. `code` is short and stable; `param` names the field that is wrong."""

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
        self.headers = headers or {}

    @property
    def body(self) -> dict[str, Any]:
        """The error as JSON."""
        kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def api_error(error: Exception) -> ApiError:
    """What a client is told of an error; what it is not told is logged."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ImageError):
        return ApiError(400, error.code, str(error), param="messages")
    if isinstance(error, ModelError):
        log.warning("model error %s: %s", error.code, _redactor.clean(str(error)))
        status, text = _MODEL_ERRORS.get(error.code, (502, "the engine gave no answer that can be used"))
        return ApiError(status, error.code, text)
    if isinstance(error, StopRun):
        log.error("%s: %s", type(error).__name__, _redactor.clean(str(error)))
        text = "the engine cannot be asked at present; the server's log says why"
        return ApiError(503, "engine_unavailable", text, headers={"Retry-After": "30"})
    log.error("a fault inside the server", exc_info=error)
    return ApiError(500, "internal_error", "a fault inside the server")
