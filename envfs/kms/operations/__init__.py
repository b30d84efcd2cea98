"""The operations of the KMS, a module for each group of them."""
