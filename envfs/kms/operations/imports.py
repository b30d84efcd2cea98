"""GetParametersForImport, ImportKeyMaterial, DeleteImportedKeyMaterial, and the end of material that expires.

https://docs.aws.amazon.com/kms/latest/developerguide/importing-keys.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric import rsa

from envfs.crypto.secret import Secret
from envfs.errors import (
    ExpiredImportToken,
    FormatError,
    IncorrectKeyMaterial,
    InvalidImportToken,
    InvalidState,
    NotFound,
    Validation,
)
from envfs.kms.audit.record import format_time
from envfs.kms.catalogue import Key
from envfs.kms.material.generate import Material, generate
from envfs.kms.material.keys import load_private_key
from envfs.kms.material.specs import SPECS, Family
from envfs.kms.material.token import LIFETIME, ImportToken
from envfs.kms.material.wrapping import check_wrapping, read_material, unwrap
from envfs.kms.model import (
    DOES_NOT_EXPIRE,
    EXPIRES,
    NO_FACTS,
    ImportedMaterial,
    ImportParameters,
    KeyState,
    Principal,
    RequestFacts,
)
from envfs.kms.operations.deletion import DeletionOperations
from envfs.kms.operations.use import KeyUse
from envfs.kms.policy.request import ConditionValue
from envfs.kms.schedule import DAY, permanent_material
from envfs.kms.schema import BACKING_KEYS, BackingKeyRow, KeyRow
from envfs.kms.sealed_store import Transaction

NEW: Final = "NEW_KEY_MATERIAL"
EXISTING: Final = "EXISTING_KEY_MATERIAL"

LONGEST_VALIDITY: Final = 365  # days
MAX_DESCRIPTION: Final = 256
_END_OF_TIME: Final = 253_402_300_800  # the year 10000, which no date of ours can name


class _Terms(NamedTuple):
    """What a request says of the material that it brings."""

    valid_to: int
    import_type: str | None
    description: str
    material_id: str | None


class ImportOperations(DeletionOperations, KeyUse):
    """Only keys of the origin EXTERNAL take imported material."""

    def get_parameters_for_import(
        self,
        principal: Principal,
        key_id: str,
        wrapping_algorithm: str,
        wrapping_key_spec: str,
        facts: RequestFacts = NO_FACTS,
    ) -> ImportParameters:
        """A fresh wrapping key, and the token that goes with it; the KMS keeps neither. Good for 24 hours."""
        parameters = {"wrappingAlgorithm": wrapping_algorithm, "wrappingKeySpec": wrapping_key_spec}
        extra: dict[str, ConditionValue] = {
            "kms:wrappingalgorithm": wrapping_algorithm,
            "kms:wrappingkeyspec": wrapping_key_spec,
        }
        with self._on_key("GetParametersForImport", principal, key_id, facts, parameters, extra) as (call, key):
            check_wrapping(SPECS[key.row.spec], wrapping_algorithm, wrapping_key_spec)
            self._stop_dry_run(call)
            material = generate(wrapping_key_spec)
            with material.private:
                self._authorise_later(call, key)
                valid_to = self._now() + LIFETIME
                token = ImportToken(key.row.key_id, wrapping_algorithm, wrapping_key_spec, valid_to, material.private)
                sealed = self._keyring.seal_import_token(token)
        return ImportParameters(key.arn, sealed, material.public_key, valid_to)

    def import_key_material(
        self,
        principal: Principal,
        key_id: str,
        token: bytes,
        encrypted_material: bytes,
        *,
        valid_to: float | None = None,
        expiration_model: str = EXPIRES,
        import_type: str | None = None,
        description: str = "",
        key_material_id: str | None = None,
        facts: RequestFacts = NO_FACTS,
    ) -> ImportedMaterial:
        """Puts material into a key, the same again if it had some before; into a symmetric key also new material, which
        waits for RotateKeyOnDemand. `valid_to` (seconds since 1970, at most 365 days away) is needed unless it does not
        expire. Without `description` the material keeps the one that it had.
        """
        # A time that is no possible one is refused below, after the decision.
        known = None if valid_to is None or not 0 <= valid_to < _END_OF_TIME else int(valid_to)
        given: dict[str, object] = {
            "expirationModel": expiration_model,
            "validTo": None if known is None else format_time(known),
            "importType": import_type,
            "keyMaterialDescription": description or None,
            "keyMaterialId": key_material_id,
        }
        parameters = {name: value for name, value in given.items() if value is not None}
        extra: dict[str, ConditionValue] = {"kms:expirationmodel": expiration_model}
        if known is not None:
            extra["kms:validto"] = str(known)  # seconds since 1970: for Date… and Numeric… operators alike
        with self._on_key("ImportKeyMaterial", principal, key_id, facts, parameters, extra, changes=True) as (
            call,
            key,
        ):
            expiry = self._check_expiration(expiration_model, valid_to)
            terms = _Terms(expiry, import_type, description, key_material_id)
            _check_terms(key, terms)
            material = self._unwrap_import(key, token, encrypted_material)
            with material.private:
                found = self._keyring.material_id(key.row.key_id, material.private).hex()
                if key_material_id is not None and key_material_id != found:
                    raise IncorrectKeyMaterial(f"the material is not {key_material_id}")
                with self._change(call) as transaction:
                    self._put_material(transaction, self._current(call, key), material, terms)
        return ImportedMaterial(key.arn, found)

    def delete_imported_key_material(
        self, principal: Principal, key_id: str, key_material_id: str | None = None, facts: RequestFacts = NO_FACTS
    ) -> ImportedMaterial:
        """Removes the material that the key has now, or the one that is named, from the database and its log. The key
        is pending import then, until the same is imported again; without effect if it has none.
        """
        parameters = {} if key_material_id is None else {"keyMaterialId": key_material_id}
        with self._on_key("DeleteImportedKeyMaterial", principal, key_id, facts, parameters, changes=True) as (
            call,
            key,
        ):
            with self._change(call) as transaction:
                row = self._current(call, key)
                rows = self._catalogue.backing_keys(row.key_id)
                target = _find_material(key.arn, row, rows, key_material_id)
                if target is not None:
                    self._remove_material(transaction, row, [target])
            self._store.erase()  # where somebody is in the way, maintenance does it
        return ImportedMaterial(key.arn, "" if target is None else target.material_id.hex())

    def _check_expiration(self, model: str, valid_to: float | None) -> int:
        """When the material expires, 0 for never. Validation unless model and time go together."""
        if model == DOES_NOT_EXPIRE:
            if valid_to is not None:
                raise Validation(f"material with the expiration model {model} has no time at which it expires")
            return 0
        if model != EXPIRES:
            raise Validation(f"{model!r} is no expiration model", hint=f"choose {EXPIRES} or {DOES_NOT_EXPIRE}")
        if valid_to is None:
            raise Validation("the time at which the material expires is missing", hint=f"or choose {DOES_NOT_EXPIRE}")
        now = self._clock()
        # The first comparison also keeps infinities and what is no number from int().
        if not now < valid_to <= now + LONGEST_VALIDITY * DAY or int(valid_to) <= now:
            raise Validation(f"material expires in the future, and within {LONGEST_VALIDITY} days")
        return int(valid_to)

    def _unwrap_import(self, key: Key, raw_token: bytes, encrypted: bytes) -> Material:
        """The material of a request. InvalidImportToken, ExpiredImportToken, InvalidCiphertext, or IncorrectKeyMaterial
        if it is none for a key of this spec.
        """
        token = self._keyring.open_import_token(raw_token)
        with token.wrapping_key as der:
            if token.key_id != key.row.key_id:
                raise InvalidImportToken(f"the import token is for another key than {key.arn}")
            if self._clock() >= token.valid_to:
                raise ExpiredImportToken(
                    "the import token has expired", hint="get another, and wrap the material under its public key"
                )
            wrapping_key = load_private_key(token.wrapping_key_spec, der, trusted=True)
            assert isinstance(wrapping_key, rsa.RSAPrivateKey)
            with unwrap(wrapping_key, token.algorithm, encrypted) as raw:
                try:
                    return read_material(SPECS[key.row.spec], raw)
                except FormatError as error:
                    raise IncorrectKeyMaterial(error.message) from None

    def _put_material(self, transaction: Transaction, row: KeyRow, material: Material, terms: _Terms) -> None:
        rows = self._catalogue.backing_keys(row.key_id)
        was_usable = self._has_material(row)
        existing = self._find_existing(row, rows, material.private, terms.import_type)
        if existing is None:
            version = max((one.version for one in rows), default=0) + 1
            made = self._keyring.wrap(row.key_id, version, row.spec, material.private, self._now(), material.public_key)
        else:
            made = self._keyring.wrap_again(existing, material.private)
        description = terms.description or made.description
        made = made._replace(valid_to=terms.valid_to, description=description)
        transaction.put(BACKING_KEYS, made)
        if not rows:
            row = row._replace(backing_key_id=made.backing_key_id)
        if not was_usable:  # a key that could be used stays as it is, disabled perhaps
            state = KeyState.ENABLED if self._has_material(row) else KeyState.PENDING_IMPORT
            row = row._replace(state=state.value)
        self._put_key(transaction, row)

    def _find_existing(
        self, row: KeyRow, rows: Sequence[BackingKeyRow], material: Secret, import_type: str | None
    ) -> BackingKeyRow | None:
        """The backing key of the same material; None where it is to become a new one. IncorrectKeyMaterial if the
        request expects the other.
        """
        material_id = self._keyring.material_id(row.key_id, material)
        existing = next((one for one in rows if one.material_id == material_id), None)
        waiting = [one for one in rows if one not in permanent_material(row, rows)]
        if import_type == EXISTING or (import_type is None and rows):
            if existing is None:
                raise IncorrectKeyMaterial(
                    "the material is not the one that was imported before",
                    hint=f"import the same again; for a rotation, import it as {NEW}",
                )
        elif existing is not None and existing not in waiting:
            raise IncorrectKeyMaterial("the material belongs to the key already", hint=f"import it as {EXISTING}")
        elif existing is None and waiting:
            raise InvalidState(
                f"the material {waiting[0].material_id.hex()} waits for a rotation already",
                hint="rotate the key on demand, or delete that material, before importing other",
            )
        return existing


def _check_terms(key: Key, terms: _Terms) -> None:
    """Validation for what a request of this key cannot say."""
    if terms.import_type not in {None, NEW, EXISTING}:
        raise Validation(f"{terms.import_type!r} is no import type", hint=f"choose {NEW} or {EXISTING}")
    only_symmetric = (terms.import_type, terms.description, terms.material_id)
    if SPECS[key.row.spec].family is not Family.SYMMETRIC and any(only_symmetric):
        raise Validation(
            f"import type, description and id of the material are for symmetric encryption keys only; the key spec of"
            f" {key.arn} is {key.row.spec}"
        )
    if terms.import_type == NEW and terms.material_id is not None:
        raise Validation(f"the id of the material cannot be given with {NEW}")
    if len(terms.description) > MAX_DESCRIPTION:
        raise Validation(f"the description of key material has at most {MAX_DESCRIPTION} characters")


def _find_material(
    key_arn: str, row: KeyRow, rows: Sequence[BackingKeyRow], material_id: str | None
) -> BackingKeyRow | None:
    """The material that is named, or the current one; None where there is none yet."""
    if material_id is None:
        return next((one for one in rows if one.backing_key_id == row.backing_key_id), None)
    for one in rows:
        if one.material_id.hex() == material_id:
            return one
    raise NotFound(f"{key_arn} has no material {material_id}")
