"""Checking a lower directory as a whole, and repairing what can be repaired (docs/OPERATIONS.md)."""
