"""Everything that is derived from a volume key, derived once."""

from __future__ import annotations

from envfs.crypto.kdf import Label, derive
from envfs.crypto.mac import Mac
from envfs.crypto.secret import Secret
from envfs.crypto.siv import SIV_KEY_SIZE
from envfs.format.names import NameCipher
from envfs.format.place import PlaceKey
from envfs.format.symlink import SymlinkCipher
from envfs.format.xattr import XattrCipher


class VolumeKeys:
    """The keys and ciphers of one volume. The volume key itself is not kept; its owner wipes it."""

    __slots__ = ("directory", "names", "place", "symlinks", "undo", "volume_file", "xattrs")

    def __init__(self, volume_key: Secret) -> None:
        self.volume_file = derive(volume_key, Label.VOLUME_FILE)
        self.directory = derive(volume_key, Label.DIRECTORY_FILE)
        self.place = PlaceKey(derive(volume_key, Label.PLACE))
        self.undo = Mac(derive(volume_key, Label.UNDO_RECORD))
        self.names = NameCipher(derive(volume_key, Label.NAMES, length=SIV_KEY_SIZE))
        self.symlinks = SymlinkCipher(derive(volume_key, Label.SYMLINK, length=SIV_KEY_SIZE), self.place)
        self.xattrs = XattrCipher(derive(volume_key, Label.XATTR, length=SIV_KEY_SIZE))

    def __repr__(self) -> str:
        return "<VolumeKeys>"
