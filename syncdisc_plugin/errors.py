"""The package's exceptions. Each message names what was wrong, what was expected, and a fix."""

from __future__ import annotations


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
