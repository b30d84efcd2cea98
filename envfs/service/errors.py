"""Errors of the service layer that the command line tells apart from a wrong setting."""

from __future__ import annotations

from envfs.errors import ConfigError


class MountError(ConfigError):
    """A mountpoint or volume is not in the state that was asked for: in use, not empty, not mounted, dead."""
