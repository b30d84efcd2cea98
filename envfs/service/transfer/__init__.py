"""Copying whole trees into a mount and out of one (docs/OPERATIONS.md, "Getting data in and out")."""
