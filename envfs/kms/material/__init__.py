"""Key material of every key spec: making, reading and using it. Pure: bytes and secrets in, bytes and secrets out."""
