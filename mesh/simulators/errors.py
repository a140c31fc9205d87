"""The error of the simulators' APIs: {"error": {"code", "message", "param"}} with an HTTP status."""

from typing import Any


class ApiError(Exception):
    """An error reply of a simulator's API."""

    def __init__(self, status: int, code: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param

    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
        return {"error": {"code": self.code, "message": self.message, "param": self.param}}
