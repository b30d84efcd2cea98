"""Metrics as Prometheus reads them (text format 0.0.4).

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple


class _Family(NamedTuple):
    name: str
    kind: str
    text: str


_OPERATIONS: Final = _Family("envfs_requests_total", "counter", "Requests of the kernel, by operation.")
_FAILURES: Final = _Family("envfs_failures_total", "counter", "Requests that failed, by errno.")
_USERS: Final = {
    "opens": _Family("envfs_user_opens_total", "counter", "Files that a user opened or created."),
    "denied": _Family("envfs_user_denied_total", "counter", "Opens that the KMS refused to a user."),
    "read_bytes": _Family("envfs_user_read_bytes_total", "counter", "Bytes decrypted for a user's reads."),
    "written_bytes": _Family("envfs_user_written_bytes_total", "counter", "Bytes encrypted for a user's writes."),
}
_UPTIME: Final = _Family("envfs_uptime_seconds", "gauge", "Time since the mount began.")
_CPU: Final = _Family("envfs_cpu_seconds_total", "counter", "Processor time of the mount's daemon.")
_MEMORY: Final = _Family("envfs_resident_bytes", "gauge", "Memory of the mount's daemon.")
_SIZES: Final = {
    "nodes": _Family("envfs_nodes", "gauge", "Files and directories that the kernel knows."),
    "open_files": _Family("envfs_open_files", "gauge", "Files that are open."),
    "file_handles": _Family("envfs_file_handles", "gauge", "Open file descriptions of files."),
    "directory_handles": _Family("envfs_directory_handles", "gauge", "Open file descriptions of directories."),
}


def exposition(mounts: Iterable[Mapping[str, Any]]) -> str:
    """The text for some mounts, each as the operation `metrics` answers it."""
    samples: dict[_Family, list[str]] = {}
    for metrics in mounts:
        for family, labels, value in _samples(metrics):
            pairs = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
            samples.setdefault(family, []).append(f"{family.name}{{{pairs}}} {value}")
    lines = []
    for family, found in samples.items():
        lines += [f"# HELP {family.name} {family.text}", f"# TYPE {family.name} {family.kind}", *found]
    return "".join(f"{line}\n" for line in lines)


def _samples(metrics: Mapping[str, Any]) -> Iterator[tuple[_Family, dict[str, str], float]]:
    mount = {"mountpoint": str(metrics["mountpoint"])}
    for name, count in sorted(metrics["operations"].items()):
        yield _OPERATIONS, mount | {"operation": name}, count
    for name, count in sorted(metrics["failures"].items()):
        yield _FAILURES, mount | {"errno": name}, count
    for user, values in sorted(metrics["users"].items()):
        for name, family in _USERS.items():
            yield family, mount | {"user": user}, values[name]
    for name, family in _SIZES.items():
        yield family, mount, metrics["sizes"][name]
    yield _UPTIME, mount, metrics["uptime_seconds"]
    yield _CPU, mount, metrics["process"]["cpu_seconds"]
    yield _MEMORY, mount, metrics["process"]["resident_bytes"]


def _escaped(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
