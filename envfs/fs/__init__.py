"""What a filesystem does: inodes, handles, content, the directory tree, and the FUSE adapter."""
