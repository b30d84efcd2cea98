"""envfs: a transparent file-encryption filesystem for Linux with a built-in KMS."""
