"""Operations on names, one after the other, by a plan that can be followed again: what a kill leaves is known exactly.

Run as `python steps.py DIRECTORY SEED`: tells the number of each step that is done, until the mount is gone. A step is
one system call on the mount, so that what stands there after a kill is the state after the last step that was told, or
after the one that follows it. Nothing here imports envfs or pytest.
"""

from __future__ import annotations

import ctypes
import os
import random
import sys
from dataclasses import dataclass, field

_LONG = 200
_FAR = 3500
_EXCHANGE = 2
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Item:
    """What stands at a name. Two names of one file share it."""

    kind: str  # "directory", "file", "symlink"
    content: bytes = b""
    mode: int = 0o600
    mark: bytes = b""  # an extended attribute


@dataclass
class Plan:
    """What the directory holds after so many steps, and what the next one is."""

    seed: int
    items: dict[str, Item] = field(default_factory=dict)
    made: int = 0

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def state(self) -> dict[str, tuple[str, bytes, int, bytes]]:
        """As `look` finds it."""
        return {name: (item.kind, item.content, item.mode, item.mark) for name, item in self.items.items()}

    def step(self, top: str | None) -> None:
        """The next step: in the plan, and where `top` names a directory, there too."""
        while True:
            what = self._rng.choice(_STEPS)
            if what(self, top):
                return

    def name(self) -> str:
        """One that is not taken."""
        self.made += 1
        directories = [name + "/" for name, item in self.items.items() if item.kind == "directory"]
        where = self._rng.choice(["", *directories]) if directories else ""
        if where.count("/") > 3:
            where = ""
        return where + f"{self.made}" + "n" * self._rng.choice([0, _LONG])

    def pick(self, *kinds: str) -> str | None:
        names = sorted(name for name, item in self.items.items() if item.kind in kinds)
        return self._rng.choice(names) if names else None

    def is_empty(self, name: str) -> bool:
        return not any(other.startswith(name + "/") for other in self.items)

    def move(self, old: str, new: str) -> None:
        moved = {name: item for name, item in self.items.items() if name == old or name.startswith(old + "/")}
        for name in moved:
            del self.items[name]
        for name, item in moved.items():
            self.items[new + name[len(old) :]] = item

    # Steps: each does nothing and says False where it does not apply.

    def mkdir(self, top: str | None) -> bool:
        if sum(item.kind == "directory" for item in self.items.values()) > 12:
            return False
        name = self.name()
        self.items[name] = Item("directory", mode=0o700)
        if top is not None:
            os.mkdir(f"{top}/{name}", 0o700)
        return True

    def create(self, top: str | None) -> bool:
        if len(self.items) > 60:
            return False
        name = self.name()
        self.items[name] = Item("file")
        if top is not None:
            os.close(os.open(f"{top}/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        return True

    def append(self, top: str | None) -> bool:
        """Up to a page: the kernel hands it over whole."""
        name = self.pick("file")
        if name is None or len(self.items[name].content) > 50_000:
            return False
        old = len(self.items[name].content)
        data = bytes([self._rng.randrange(1, 256)]) * self._rng.randrange(1, 4097 - old % 4096)
        self.items[name].content += data
        if top is not None:
            fd = os.open(f"{top}/{name}", os.O_WRONLY | os.O_APPEND)
            os.write(fd, data)
            os.close(fd)
        return True

    def truncate(self, top: str | None) -> bool:
        name = self.pick("file")
        if name is None or not self.items[name].content:
            return False
        size = self._rng.choice([0, self._rng.randrange(len(self.items[name].content))])
        self.items[name].content = self.items[name].content[:size]
        if top is not None:
            os.truncate(f"{top}/{name}", size)
        return True

    def symlink(self, top: str | None) -> bool:
        if len(self.items) > 60:
            return False
        name, target = self.name(), b"t" * self._rng.choice([5, _FAR])
        self.items[name] = Item("symlink", target, 0o777)
        if top is not None:
            os.symlink(target, f"{top}/{name}".encode())
        return True

    def rename(self, top: str | None) -> bool:
        old, new = self.pick("directory", "file", "symlink"), self.name()
        if old is None or new.startswith(old + "/"):
            return False
        self.move(old, new)
        if top is not None:
            os.rename(f"{top}/{old}", f"{top}/{new}")
        return True

    def rename_over(self, top: str | None) -> bool:
        old, new = self.pick("file", "symlink"), self.pick("file", "symlink")
        if old is None or new is None or old == new or self.items[old] is self.items[new]:
            return False
        self.items[new] = self.items.pop(old)
        if top is not None:
            os.rename(f"{top}/{old}", f"{top}/{new}")
        return True

    def exchange(self, top: str | None) -> bool:
        kinds = ("directory", "file", "symlink")
        one, other = self.pick(*kinds), self.pick(*kinds)
        if one is None or other is None or one == other:
            return False
        if one.startswith(other + "/") or other.startswith(one + "/") or self.items[one] is self.items[other]:
            return False
        self.move(one, "\0")
        self.move(other, one)
        self.move("\0", other)
        if top is not None:
            paths = (ctypes.c_char_p(f"{top}/{name}".encode()) for name in (one, other))
            if _libc.renameat2(-100, next(paths), -100, next(paths), ctypes.c_uint(_EXCHANGE)) != 0:
                raise OSError(ctypes.get_errno(), "renameat2")
        return True

    def link(self, top: str | None) -> bool:
        old, new = self.pick("file"), self.name()
        if old is None or len(self.items) > 60:
            return False
        self.items[new] = self.items[old]
        if top is not None:
            os.link(f"{top}/{old}", f"{top}/{new}")
        return True

    def remove(self, top: str | None) -> bool:
        name = self.pick("directory", "file", "symlink")
        if name is None or not self.is_empty(name):
            return False
        kind = self.items.pop(name).kind
        if top is not None:
            (os.rmdir if kind == "directory" else os.unlink)(f"{top}/{name}")
        return True

    def chmod(self, top: str | None) -> bool:
        name, mode = self.pick("file"), self._rng.choice([0o600, 0o644, 0o400])
        if name is None:
            return False
        self.items[name].mode = mode
        if top is not None:
            os.chmod(f"{top}/{name}", mode)
        return True

    def setxattr(self, top: str | None) -> bool:
        name = self.pick("file")
        if name is None:
            return False
        mark = self.items[name].mark = b"%d" % self._rng.randrange(1000)
        if top is not None:
            os.setxattr(f"{top}/{name}", "user.mark", mark)
        return True


_STEPS = (
    Plan.mkdir, Plan.create, Plan.create, Plan.append, Plan.append, Plan.append, Plan.truncate, Plan.symlink,
    Plan.rename, Plan.rename, Plan.rename_over, Plan.exchange, Plan.link, Plan.remove, Plan.remove, Plan.chmod,
    Plan.setxattr,
)  # fmt: skip


def look(top: str) -> dict[str, tuple[str, bytes, int, bytes]]:
    """What stands in a directory, by path."""
    found = {}
    for directory, directories, names in os.walk(top, onerror=_fail):
        for entry in directories + names:
            path = f"{directory}/{entry}"
            name, mode = path[len(top) + 1 :], os.lstat(path).st_mode & 0o7777
            if os.path.islink(path):
                found[name] = ("symlink", os.readlink(path.encode()), mode, b"")
            elif os.path.isdir(path):
                found[name] = ("directory", b"", mode, b"")
            else:
                with open(path, "rb") as file:
                    mark = os.getxattr(path, "user.mark") if "user.mark" in os.listxattr(path) else b""
                    found[name] = ("file", file.read(), mode, mark)
    return found


def _fail(error: OSError) -> None:
    raise error


def main(top: str, seed: str) -> None:
    """Steps until the mount is gone."""
    plan = Plan(int(seed))
    number = 0
    while True:
        number += 1
        plan.step(top)
        print(number, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
