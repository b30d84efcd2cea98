"""The audit trail: who asked for which key, what was decided and why; written before a key is handed out."""
