"""One mount from beginning to end: wiring, readiness, signals, and the orderly end."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import socket
import string
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from envfs.access.resolver import Resolver
from envfs.api.server import Server
from envfs.errors import EnvfsError
from envfs.fs.filesystem import Filesystem
from envfs.fs.loop import serve, stop
from envfs.fs.state import FsOptions
from envfs.kms.engine import Engine
from envfs.service import checks, daemon, hardening, kms_server, kms_socket, log, mountinfo, registry, runtime, unmount
from envfs.service.control import ControlServer
from envfs.service.errors import MountError
from envfs.service.idle import unmount_when_idle
from envfs.service.locking import MountLock
from envfs.service.requests import MountFacts, Requests
from envfs.service.tuning import tune_mount
from envfs.service.volume import open_volume, parse_volume_file, read_volume_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from envfs.format.volume import VolumeFile
    from envfs.kms.rootkey import Unlock
    from envfs.service.config import MountOptions

    Report = Callable[[dict[str, Any]], None]

_PLAIN = frozenset(string.ascii_letters + string.digits + "/._-")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MountRequest:
    """What `envfs mount` was asked for. `lower` and `mountpoint` as `prepare` returns them."""

    lower: Path
    mountpoint: Path
    home: Path
    options: MountOptions


def prepare(lower: Path, mountpoint: Path, home: Path, options: MountOptions) -> MountRequest:
    """Refuse what can be refused before any key is asked for: EnvfsError, OSError."""
    parse_volume_file(read_volume_file(lower), lower)
    checks.check_fuse(options)
    lower = lower.resolve()
    return MountRequest(lower, checks.check_mountpoint(mountpoint, lower), home, options)


def mount_in_background(request: MountRequest, unlock: Unlock) -> dict[str, Any]:
    """Leave a daemon that serves the mount. Returns when it is usable (`pid`, `device`, `log`), or raises why not."""
    path = log.log_path(request.home, request.mountpoint)
    return daemon.spawn(
        functools.partial(run, request, unlock, log_file=path),
        detach=lambda: daemon.detach_streams(lambda: log.to_file(path, level=log.level_of(request.options.log_level))),
        failure_hint=f"see {path}",
    )


def run(request: MountRequest, unlock: Unlock, report: Report, *, log_file: Path | None = None) -> None:
    """Serve the mount in this process until it is unmounted, or a signal ends it. `report` hears when it is usable."""
    protection = hardening.protect_process()
    if not hardening.heed_quotas():
        _log.warning("quotas of the lower filesystem do not hold: CAP_SYS_RESOURCE cannot be given up")
    os.umask(0)  # the modes are the callers'; what the daemon makes for itself says its mode
    _log.info("mounting %s at %s (%s)", request.lower, request.mountpoint, protection)
    with contextlib.ExitStack() as stack:
        for lock in (checks.lock_directory, checks.lock_volume):
            stack.callback(os.close, lock(request.lower, shared=request.options.read_only))
        engine = stack.enter_context(Engine.open(request.home, unlock))
        unlock.wipe()  # a mount needs no passphrase any more, and can then not lose one
        _serve(request, engine, report, log_file)
    _log.info("unmounted %s", request.mountpoint)


def _serve(request: MountRequest, engine: Engine, report: Report, log_file: Path | None) -> None:
    volume = open_volume(request.lower, engine)
    resolver = Resolver(engine)
    options = fs_options(request.options)
    filesystem = Filesystem(request.lower, volume.file, volume.keys, engine, resolver, options)
    try:
        with kms_server.open_server(engine) as server:
            kms = _Kms(server, engine, resolver)
            mount_lock = MountLock(filesystem, engine, server, request.lower)
            answer = _answerer(request, volume.file, filesystem, kms, mount_lock, log_file)
            trio.run(_Session(request, filesystem, options, answer, kms, mount_lock, report, log_file).run)
    finally:
        filesystem.close()


def _answerer(
    request: MountRequest,
    volume: VolumeFile,
    filesystem: Filesystem,
    kms: _Kms,
    mount_lock: MountLock,
    log_file: Path | None,
) -> Callable[[mountinfo.MountEntry], Requests]:
    """What answers the control socket, as soon as it is known what the mount became."""

    def answer(entry: mountinfo.MountEntry) -> Requests:
        facts = MountFacts(
            device=entry.device,
            mountpoint=entry.mountpoint,
            lower=request.lower,
            home=request.home,
            options=words(request.options),
            started=time.time(),
            log=log_file,
        )
        return Requests(facts, volume, filesystem, kms.engine, kms.resolver, mount_lock)

    return answer


class _Kms(NamedTuple):
    """The KMS that a mount serves beside its files."""

    server: Server
    engine: Engine
    resolver: Resolver


class _Session:
    """The tasks of a running mount: pyfuse3's loop, the control socket, the signals."""

    def __init__(
        self,
        request: MountRequest,
        filesystem: Filesystem,
        options: FsOptions,
        answer: Callable[[mountinfo.MountEntry], Requests],
        kms: _Kms,
        mount_lock: MountLock,
        report: Report,
        log_file: Path | None,
    ) -> None:
        self._request = request
        self._mountpoint = os.fspath(request.mountpoint)
        self._filesystem = filesystem
        self._options = options
        self._answer = answer
        self._kms = kms
        self._lock = mount_lock
        self._report = report
        self._log_file = log_file
        self._failure: Exception | None = None
        self._ready = False

    async def run(self) -> None:
        """Until the mount is gone. Raises what kept it from becoming usable."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_signals, nursery)
            if self._request.options.lock_on is not None:
                nursery.start_soon(self._lock_on, self._request.options.lock_on)
            if self._request.options.idle is not None:
                nursery.start_soon(unmount_when_idle, self._filesystem, self._mountpoint, self._request.options.idle)
            try:
                await serve(
                    self._filesystem,
                    self._mountpoint,
                    fuse_options=fuse_options(self._request.lower, self._request.options),
                    options=self._options,
                    on_ready=lambda: nursery.start_soon(self._announce),
                )
            except Exception as error:  # noqa: BLE001  (raised again below, outside the nursery's exception group)
                self._failure = self._failure or self._explained(error)
            nursery.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    def _explained(self, error: Exception) -> Exception:
        """libfuse says why it cannot mount on stderr alone, which is the log."""
        if self._ready or not isinstance(error, RuntimeError):
            return error
        where = "above" if self._log_file is None else f"in {self._log_file}"
        return MountError(f"the system refused the mount ({error})", hint=f"the reason stands {where}")

    async def _announce(self) -> None:
        """The kernel's INIT is answered: tune the mount, open the control socket, tell the command, and answer."""
        self._ready = True
        try:
            entry = mountinfo.at_mountpoint(self._mountpoint)
            if entry is None:
                raise MountError(f"{self._mountpoint} was unmounted again at once", hint="try again")
            if os.geteuid() == 0:
                tune_mount(entry.device)
            path = runtime.prepare_directory(os.geteuid()) / runtime.socket_name(entry.device)
            everybody = self._request.options.others_allowed(os.geteuid())
            control = ControlServer(
                path, self._answer(entry).handle, everybody=everybody, requests=lambda: self._filesystem.requests
            )
            registry.remember(
                self._request.home, self._filesystem.state.volume.volume_id, self._request.lower, self._mountpoint
            )
            _log.info("ready: %s, device %s", self._mountpoint, entry.device)
            try:
                with self._kms_listener(everybody=everybody) as listener:
                    self._report({"pid": os.getpid(), "device": entry.device, "mountpoint": self._mountpoint})
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(kms_server.maintain, self._kms.engine)
                        if listener is not None:
                            nursery.start_soon(self._kms.server.serve_unix, listener, self._kms.resolver)
                        await control.serve()
            finally:
                control.close()
        except Exception as error:  # noqa: BLE001  (raised again by run)
            self._failure = error
            await self._end()

    @contextlib.contextmanager
    def _kms_listener(self, *, everybody: bool) -> Iterator[socket.socket | None]:
        """The KMS's socket. A mount does without it where there can be none: its files do not need it."""
        with contextlib.ExitStack() as stack:
            listener = None
            try:
                path = kms_socket.socket_path(self._request.home)
                listener = stack.enter_context(kms_server.listening(path, everybody=everybody))
            except (EnvfsError, OSError) as error:
                _log.warning("the KMS has no socket in this mount: %s", error)
            yield listener

    async def _watch_signals(self, nursery: trio.Nursery) -> None:
        """The first signal unmounts in order, a second one at once."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            ending = False
            async for number in signals:
                _log.info("%s: unmounting", signal.Signals(number).name)
                if ending:
                    stop()
                else:
                    ending = True
                    nursery.start_soon(self._end)

    async def _lock_on(self, number: int) -> None:
        """`-o lock-on=USR1`: each signal locks the mount."""
        with trio.open_signal_receiver(number) as signals:
            async for _ in signals:
                _log.info("%s: locking", signal.Signals(number).name)
                await self._lock.lock_quietly()

    async def _end(self) -> None:
        """Unmount while requests are still being answered, since the kernel has pages to write back."""
        try:
            await trio.to_thread.run_sync(unmount.detach_after_writing, self._mountpoint, abandon_on_cancel=True)
        except (EnvfsError, OSError) as error:
            _log.warning("unmounting by force, what has files open loses them: %s", error)
            stop()


def fs_options(options: MountOptions) -> FsOptions:
    """What the filesystem has to know of the mount options."""
    return FsOptions(
        noxattr=options.noxattr,
        read_only=options.read_only,
        acl=options.acl,
        poll=options.poll,
        writeback=options.writeback and not options.isolate,
        isolate=options.isolate,
        journal=options.journal,
        allow_other=options.others_allowed(os.geteuid()),
    )


def fuse_options(lower: Path, options: MountOptions) -> set[str]:
    """What libfuse and the kernel have to know: who may enter, that the kernel checks the Unix modes, who we are."""
    # pyfuse3 passes ASCII alone, and a comma would end the option; libfuse knows octal escapes (fuse_opt.c).
    source = "".join(chr(byte) if chr(byte) in _PLAIN else f"\\{byte:03o}" for byte in os.fsencode(lower))
    chosen = {f"fsname={source}", f"subtype={mountinfo.SUBTYPE}", *options.kernel_flags}
    if options.others_allowed(os.geteuid()):
        chosen.add("allow_other")
    # A mount that root alone may enter needs no check of modes, which root passes anyway, and whose price is one more
    # request for each name that is made, moved or removed.
    if os.geteuid() != 0 or options.others_allowed(0):
        chosen.add("default_permissions")
    if options.read_only:
        chosen.add("ro")
    return chosen


def words(options: MountOptions) -> tuple[str, ...]:
    """The options in force, as `-o` spells them."""
    switches = {
        "noxattr": options.noxattr,
        "acl": options.acl,
        "poll": options.poll is True,
        "nopoll": options.poll is False,
        "nowriteback": not options.writeback,
        "isolate": options.isolate,
        "nojournal": not options.journal,
        "allow_other": options.others_allowed(os.geteuid()),
    }
    chosen = [name for name, on in switches.items() if on]
    if options.idle is not None:
        chosen.append(f"idle={options.idle}s")
    if options.lock_on is not None:
        chosen.append(f"lock-on={signal.Signals(options.lock_on).name.removeprefix('SIG')}")
    if options.log_level != "info":
        chosen.append(f"log={options.log_level}")
    return ("ro" if options.read_only else "rw", *chosen, *sorted(options.kernel_flags))
