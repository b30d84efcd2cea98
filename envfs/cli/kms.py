"""`envfs kms`."""

from __future__ import annotations

import click

from envfs.cli.lazy import Lazy, LazyGroup

COMMANDS = {
    "init": Lazy("envfs.cli.kms_init", "init", "Make a KMS in ENVFS_HOME."),
    "slot": Lazy("envfs.cli.kms_slot", "slot", "The slots of the root key: what opens the KMS."),
    "change-passphrase": Lazy(
        "envfs.cli.kms_passphrase", "change_passphrase", "Put a new passphrase in place of the present one."
    ),
    "backup": Lazy("envfs.cli.kms_backup", "backup", "Write the KMS to FILE, encrypted, while it is in use."),
    "restore": Lazy("envfs.cli.kms_backup", "restore", "Make the KMS in ENVFS_HOME as it was when FILE was written."),
    "serve": Lazy(
        "envfs.cli.kms_serve", "serve", "Serve the KMS to AWS's clients, in the foreground, until it is interrupted."
    ),
    "whoami": Lazy("envfs.cli.kms_check", "whoami", "Say who you are to the KMS, and which way it is reached."),
    "verify": Lazy("envfs.cli.kms_check", "verify", "Check that nobody tampered with the KMS's store and audit trail."),
    "encrypt": Lazy("envfs.cli.kms_crypto", "encrypt", "Encrypt up to 4,096 bytes under KEY."),
    "decrypt": Lazy("envfs.cli.kms_crypto", "decrypt", "Decrypt what the KMS encrypted."),
    "re-encrypt": Lazy("envfs.cli.kms_crypto", "re_encrypt", "Encrypt a ciphertext anew, under another key."),
    "generate-data-key": Lazy("envfs.cli.kms_data_keys", "data_key", "Make a data key, plain and encrypted under KEY."),
    "generate-data-key-pair": Lazy(
        "envfs.cli.kms_data_keys", "data_key_pair", "Make a key pair whose private key is encrypted under KEY."
    ),
    "generate-random": Lazy("envfs.cli.kms_data_keys", "random", "Write random bytes of the KMS."),
    "sign": Lazy("envfs.cli.kms_sign", "sign", "Sign a message, or its digest."),
    "verify-signature": Lazy("envfs.cli.kms_sign", "verify_signature", "Check a signature that KEY made."),
    "generate-mac": Lazy("envfs.cli.kms_mac", "generate_mac", "Make the HMAC of a message under KEY."),
    "verify-mac": Lazy("envfs.cli.kms_mac", "verify_mac", "Check an HMAC that KEY made."),
    "derive-shared-secret": Lazy("envfs.cli.kms_agree", "derive", "Agree on a secret with the owner of a public key."),
    "encapsulate": Lazy("envfs.cli.kms_agree", "encapsulate", "Make a shared secret, and its ciphertext for KEY."),
    "decapsulate": Lazy("envfs.cli.kms_agree", "decapsulate", "Open the ciphertext of a shared secret."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def kms() -> None:
    """Make, check and serve the key management service (KMS), and use its keys.

    Keys themselves are made and managed by `envfs key`. KEY is a key id, an ARN or alias/NAME. Where a FILE is not
    named, stdin and stdout are meant.
    """
