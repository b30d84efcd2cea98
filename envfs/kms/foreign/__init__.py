"""Keys that an AWS-KMS-compatible endpoint elsewhere holds (docs/KMS.md, "Foreign keys"). Knows no event loop."""
