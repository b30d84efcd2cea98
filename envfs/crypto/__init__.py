"""Bytes to bytes: AEADs, key derivation, secrets. No I/O, no policy."""
