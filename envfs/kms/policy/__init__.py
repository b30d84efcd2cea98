"""The policy language of AWS IAM as far as a KMS needs it: parsed once, evaluated as a pure function."""
