"""`envfs kms generate-data-key|generate-data-key-pair|generate-random`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from envfs.cli.answers import as_fields
from envfs.cli.arguments import PATH, dry_run_member, dry_run_option, key_argument
from envfs.cli.backend import open_backend
from envfs.cli.byte_io import base64_option, context_member, decode, output_option, pem, write_file, write_secret
from envfs.cli.output import examples, json_option, print_fields, print_json
from envfs.cli.pairs import context_option
from envfs.cli.passphrase import passphrase_file_option

DEFAULT_BYTES = 32


@click.command(
    epilog=examples(
        "envfs kms generate-data-key alias/payroll --plaintext-file key.bin --ciphertext-file key.enc",
        "envfs kms generate-data-key alias/payroll --ciphertext-file key.enc   # its plaintext on demand: kms decrypt",
    )
)
@key_argument
@click.option("--bytes", "size", type=int, metavar="N", default=DEFAULT_BYTES, show_default=True, help="1 to 1024.")
@context_option
@click.option("--plaintext-file", type=PATH, metavar="FILE", help="Gets the key itself, readable for you alone.")
@click.option("--ciphertext-file", type=PATH, metavar="FILE", help="Gets the encrypted key.")
@click.option("--without-plaintext", is_flag=True, help="With --json: leave the key itself out.")
@dry_run_option
@passphrase_file_option
@json_option
def data_key(
    key_id: str,
    size: int,
    context: dict[str, str],
    plaintext_file: Path | None,
    ciphertext_file: Path | None,
    passphrase_file: Path | None,
    *,
    without_plaintext: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make a data key, plain and encrypted under KEY.

    Encrypt with the key itself, keep the encrypted one beside what it encrypted, and forget the other. Without
    --plaintext-file nobody sees it, and kms:GenerateDataKeyWithoutPlaintext is what has to be allowed.
    """
    _check_targets(as_json, dry_run, without_plaintext, ciphertext_file, plaintext_file)
    wants_plaintext = plaintext_file is not None or (as_json and not without_plaintext)
    operation = "GenerateDataKey" if wants_plaintext else "GenerateDataKeyWithoutPlaintext"
    request: dict[str, Any] = {"KeyId": key_id, "NumberOfBytes": size}
    request |= context_member("EncryptionContext", context) | dry_run_member(dry_run=dry_run)
    with open_backend(passphrase_file) as backend:
        answer = backend.call(operation, request)
    shown = _write(answer, {"Plaintext": plaintext_file}, {"CiphertextBlob": ciphertext_file}, {})
    _show(shown, as_json=as_json)


@click.command(
    epilog=examples(
        "envfs kms generate-data-key-pair alias/payroll --spec RSA_3072 \\",
        "    --public-file pair.pem --private-file private.pem --ciphertext-file private.enc",
    )
)
@key_argument
@click.option("--spec", metavar="SPEC", required=True, help="Of the pair: RSA_2048, ECC_NIST_P256, ...")
@context_option
@click.option("--public-file", type=PATH, metavar="FILE", help="Gets the public key, as PEM.")
@click.option("--private-file", type=PATH, metavar="FILE", help="Gets the private key as PEM, readable for you alone.")
@click.option(
    "--ciphertext-file",
    type=PATH,
    metavar="FILE",
    help="Gets the encrypted private key; decrypted it is PKCS #8 in DER.",
)
@click.option("--without-plaintext", is_flag=True, help="With --json: leave the private key out.")
@dry_run_option
@passphrase_file_option
@json_option
def data_key_pair(
    key_id: str,
    spec: str,
    context: dict[str, str],
    public_file: Path | None,
    private_file: Path | None,
    ciphertext_file: Path | None,
    passphrase_file: Path | None,
    *,
    without_plaintext: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make a key pair whose private key is encrypted under KEY.

    Without --private-file nobody sees it, and kms:GenerateDataKeyPairWithoutPlaintext is what has to be allowed.
    """
    _check_targets(as_json, dry_run, without_plaintext, ciphertext_file, private_file)
    wants_plaintext = private_file is not None or (as_json and not without_plaintext)
    operation = "GenerateDataKeyPair" if wants_plaintext else "GenerateDataKeyPairWithoutPlaintext"
    request: dict[str, Any] = {"KeyId": key_id, "KeyPairSpec": spec}
    request |= context_member("EncryptionContext", context) | dry_run_member(dry_run=dry_run)
    with open_backend(passphrase_file) as backend:
        answer = backend.call(operation, request)
    labels = {"PrivateKeyPlaintext": "PRIVATE KEY", "PublicKey": "PUBLIC KEY"}
    public = {"PrivateKeyCiphertextBlob": ciphertext_file, "PublicKey": public_file}
    _show(_write(answer, {"PrivateKeyPlaintext": private_file}, public, labels), as_json=as_json)


@click.command(epilog=examples("envfs kms generate-random 32 -o key.bin", "envfs kms generate-random 16 --base64"))
@click.argument("size", metavar="BYTES", type=int)
@output_option
@base64_option
@passphrase_file_option
@json_option
def random(size: int, output: Path | None, passphrase_file: Path | None, *, as_base64: bool, as_json: bool) -> None:
    """Write random bytes of the KMS.

    BYTES is 1 to 1024. With -o they go to a file that only you can read.
    """
    with open_backend(passphrase_file) as backend:
        answer = backend.call("GenerateRandom", {"NumberOfBytes": size})
    if as_json:
        print_json(as_fields(answer))
    else:
        write_secret(decode(answer["Plaintext"]), output, as_base64=as_base64, is_text=False)


def _check_targets(
    as_json: bool,
    dry_run: bool,
    without_plaintext: bool,
    ciphertext: Path | None,
    plaintext: Path | None,
) -> None:
    """A key that would be lost at once is not made."""
    if without_plaintext and plaintext is not None:
        raise click.UsageError("--without-plaintext, and a file for the plaintext: which of the two?")
    if ciphertext is None and not (as_json or dry_run):
        raise click.UsageError("nobody would keep the encrypted key: --ciphertext-file FILE, or --json")


def _write(
    answer: dict[str, Any], secret: dict[str, Path | None], public: dict[str, Path | None], labels: dict[str, str]
) -> dict[str, Any]:
    """Members of the answer into the files that were named; what is left is to be shown. The ciphertexts first: a
    plaintext whose ciphertext is lost is of no use.
    """
    left = dict(answer)
    for files in (public, secret):
        for member, path in files.items():
            if path is None:
                continue
            content = decode(left.pop(member))
            label = labels.get(member)
            write_file(path, content if label is None else pem(label, content), secret=files is secret)
    return left


def _show(left: dict[str, Any], *, as_json: bool) -> None:
    fields = as_fields(left)
    if as_json:
        print_json(fields)
    else:
        print_fields({name: fields[name] for name in ("arn", "key_pair_spec", "key_material_id") if name in fields})
