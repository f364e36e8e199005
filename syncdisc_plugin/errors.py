"""The package's exceptions. Each message names what was wrong, what was expected, and a fix."""

from __future__ import annotations

import errno

# EFBIG is a limit on the size of files.
_MACHINES_FAULT = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMFILE, errno.ENFILE}

# A disk, a network or a memory that fails for a while; not every system knows all of them.
# fmt: off
_PASSING_NAMES = (
    "EIO", "ENOMEM", "ENODEV", "ENXIO", "ESTALE", "ETIMEDOUT", "EREMOTEIO", "ENOTCONN",
    "ESHUTDOWN", "ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "EHOSTDOWN", "EHOSTUNREACH",
    "ENETDOWN", "ENETUNREACH", "ENETRESET", "ENOLINK", "ECOMM",
)
# fmt: on
_PASSING = {getattr(errno, name) for name in _PASSING_NAMES if hasattr(errno, name)}


class SyncDiscError(Exception):
    """Base of all errors that a user can cause; the CLI prints them as one line."""


class MediaError(SyncDiscError):
    """A file that cannot be decoded, or lacks the stream that is needed."""


class FaceError(SyncDiscError):
    """No usable face, or a detector that cannot be loaded."""


class StoreError(SyncDiscError):
    """A clip store that is missing, empty, damaged, or of another spec."""


class WeightsError(SyncDiscError):
    """A checkpoint that is missing, damaged, or not one of ours."""


class RunError(SyncDiscError):
    """A run that cannot start or go on: folder in use, other settings, no data, no workers."""


# How torch's allocator on the CPU and OpenCV say it, without a type of their own.
_FULL = ("can't allocate memory", "not enough memory", "Insufficient memory")


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, the machine's or the GPU's: no fault of the input for good."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    named = type(error).__name__ == "OutOfMemoryError"  # torch's, which is not imported here
    return named or any(words in str(error) for words in _FULL)


def is_passing(error: BaseException) -> bool:
    """Whether a disk, a network or the machine failed, so that another try may well succeed."""
    number = getattr(error, "errno", None)
    return number in _PASSING or number in _MACHINES_FAULT


def is_machines_fault(error: Exception) -> bool:
    """Whether it is a full disk or the like, and so no fault of the input that was at work."""
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in _MACHINES_FAULT
