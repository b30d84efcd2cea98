"""Bytes to values and back, as docs/FORMAT.md says. No I/O."""
