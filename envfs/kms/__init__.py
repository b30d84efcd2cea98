"""The embedded key management service: keys, policies, decisions, audit."""
