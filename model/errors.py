"""Errors that a user of the model can cause and repair. Each has a code for programs and a hint for people."""

from __future__ import annotations

PORTRAIT_CODES = frozenset({"not_an_image", "picture_too_small", "picture_too_large", "no_face", "several_faces"})


class ModelError(ValueError):
    """`code` for programs, `message` says what is wrong, `hint` what to do."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[ModelError], tuple[str, str, str]]:
        # The default would rebuild it from `message` alone, and the error would die on its way between processes.
        return type(self), (self.code, self.message, self.hint)


class PortraitError(ModelError):
    """A picture that cannot become a presenter. `code` is one of PORTRAIT_CODES."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        assert code in PORTRAIT_CODES, code
        super().__init__(code, message, hint)


class CheckpointError(ModelError):
    """Weights that are missing, damaged or of another model; the message names the file or the tensor."""


class ConfigError(ModelError):
    """An option that this machine or preset does not have."""
