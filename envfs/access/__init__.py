"""From the Unix caller of a request to a KMS principal."""
