"""Everything that is derived from a volume key, derived once."""

from __future__ import annotations

from envfs.crypto.kdf import Label, derive
from envfs.crypto.mac import Mac
from envfs.crypto.scrub import overwrite
from envfs.crypto.secret import Secret
from envfs.crypto.siv import SIV_KEY_SIZE
from envfs.format.names import NameCipher
from envfs.format.place import PlaceKey
from envfs.format.symlink import SymlinkCipher
from envfs.format.xattr import XattrCipher


class VolumeKeys:
    """The keys and ciphers of one volume. The volume key itself is not kept; its owner wipes it."""

    __slots__ = ("_file_binding", "directory", "names", "place", "symlinks", "undo", "volume_file", "xattrs")

    def __init__(self, volume_key: Secret) -> None:
        self.volume_file = derive(volume_key, Label.VOLUME_FILE)
        self._file_binding = derive(volume_key, Label.FILE_BINDING)
        self.directory = derive(volume_key, Label.DIRECTORY_FILE)
        self.place = PlaceKey(derive(volume_key, Label.PLACE))
        self.undo = Mac(derive(volume_key, Label.UNDO_RECORD))
        self.names = NameCipher(derive(volume_key, Label.NAMES, length=SIV_KEY_SIZE))
        self.symlinks = SymlinkCipher(derive(volume_key, Label.SYMLINK, length=SIV_KEY_SIZE), self.place)
        self.xattrs = XattrCipher(derive(volume_key, Label.XATTR, length=SIV_KEY_SIZE))

    def forget(self) -> None:
        """Lets go of all of them: whoever uses one gets KeyUnavailable or worse, until `adopt`."""
        for key in (self.volume_file, self._file_binding, self.directory):
            overwrite(key)
        self.volume_file = self._file_binding = self.directory = b""
        for cipher in (self.place, self.undo, self.names, self.symlinks, self.xattrs):
            cipher.forget()

    def adopt(self, fresh: VolumeKeys) -> None:
        """The keys of `fresh`, in the same objects as before: others hold them."""
        self.volume_file, self._file_binding, self.directory = fresh.volume_file, fresh._file_binding, fresh.directory
        self.place.adopt(fresh.place)
        self.undo.adopt(fresh.undo)
        self.names.adopt(fresh.names)
        self.symlinks.adopt(fresh.symlinks)
        self.xattrs.adopt(fresh.xattrs)

    def file_key(self, dek: Secret, *, is_bound: bool) -> Secret:
        """What the keys of a file are derived from, given its DEK, which is wiped; `is_bound` is the volume's.

        It takes the volume key as well: somebody whom the KMS lets make a DEK for a file of his choice, and who can
        write the lower directory, could else put content of his own into the place of another's file.
        """
        if not is_bound:
            return dek
        with dek:
            return Secret(derive(dek, Label.BOUND_FILE, self._file_binding))

    def __repr__(self) -> str:
        return "<VolumeKeys>"
