"""Access keys: what Unix users sign requests with over TCP.

https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateAccessKey.html and its neighbours
"""

from __future__ import annotations

import base64
import os
import re
from typing import Final

from envfs.crypto.secret import Secret
from envfs.errors import AccessDenied, AlreadyExists, LimitExceeded, NotFound, Validation
from envfs.kms.model import NO_FACTS, AccessKey, NewAccessKey, Principal, RequestFacts
from envfs.kms.operations.identity import IdentityOperations
from envfs.kms.schema import ACCESS_KEYS, AccessKeyRow, StoreRow

MAX_OF_ONE_USER: Final = 2  # as AWS has it: the old one and the new one while it is being replaced
_PREFIX: Final = "AKIA"
_ACCESS_KEY_ID: Final = re.compile(r"\w{16,128}", re.ASCII)
_SECRET: Final = re.compile(rb"[!-~]{16,128}")
_NOT_THIS_KEY: Final = "there is no such access key, or you are not allowed to delete it"


class AccessKeyOperations(IdentityOperations):
    """A user's access keys are bound to his name and his uid, which are pinned to each other."""

    _row: StoreRow

    def create_access_key(
        self,
        principal: Principal,
        user: str,
        *,
        access_key_id: str | None = None,
        secret: Secret | None = None,
        facts: RequestFacts = NO_FACTS,
    ) -> NewAccessKey:
        """A new access key of the Unix user `user`, random or as given. The caller wipes its secret, which is told
        this once. Nobody but the account root himself makes one of his: whoever may make access keys would become the
        owner of the KMS by it.
        """
        with self._recorded("iam:CreateAccessKey", principal, facts, {"userName": user}) as call:
            self._authorise(call, call.event, self._account.user_arn(user))
            uid = self._uid_for_access_key(user)
            if uid == self._row.owner_uid and not principal.is_account_root:
                raise AccessDenied(f"{user} owns the KMS: nobody else makes access keys for him")
            access_key_id = _new_id() if access_key_id is None else _checked_id(access_key_id)
            secret = _new_secret() if secret is None else _checked_secret(secret)
            wrapped = self._keyring.wrap_access_key(access_key_id, uid, user, secret)
            row = AccessKeyRow(access_key_id, uid, user, wrapped, self._now())
            call.parameters = {"userName": user, "accessKeyId": access_key_id}
            with self._change(call) as transaction:
                if self._store.get(ACCESS_KEYS, access_key_id) is not None:
                    raise AlreadyExists(f"there is an access key {access_key_id}")
                if len(self._store.find(ACCESS_KEYS, uid=uid)) >= MAX_OF_ONE_USER:
                    raise LimitExceeded(
                        f"{user} has {MAX_OF_ONE_USER} access keys", hint="delete the one that is not used any more"
                    )
                if not self._pin(transaction, uid, user):
                    raise _not_himself(user, uid)
                transaction.put(ACCESS_KEYS, row)
        return NewAccessKey(_public(row), secret)

    def list_access_keys(
        self, principal: Principal, user: str, facts: RequestFacts = NO_FACTS
    ) -> tuple[AccessKey, ...]:
        """The access keys of the Unix user `user`, without their secrets, by id."""
        with self._recorded("iam:ListAccessKeys", principal, facts, {"userName": user}) as call:
            self._authorise(call, call.event, self._account.user_arn(user))
            return tuple(_public(row) for row in self._store.find(ACCESS_KEYS, user=user))

    def delete_access_key(self, principal: Principal, access_key_id: str, facts: RequestFacts = NO_FACTS) -> None:
        """From the next request on, nobody signs with it. NotFound if there is none."""
        with self._recorded("iam:DeleteAccessKey", principal, facts, {"accessKeyId": access_key_id}) as call:
            row = self._store.get(ACCESS_KEYS, access_key_id)
            try:
                self._authorise(call, call.event, self._account.user_arn("*" if row is None else row.user))
            except AccessDenied:
                # Whoever may not delete just any access key learns neither whether there is this one, nor whose it is.
                raise AccessDenied(_NOT_THIS_KEY) from None
            with self._change(call) as transaction:
                if self._store.get(ACCESS_KEYS, access_key_id) is None:
                    raise NotFound(f"there is no access key {access_key_id!r}", hint="see: envfs iam access-key list")
                transaction.delete(ACCESS_KEYS, access_key_id)

    def signing_secret(self, access_key_id: str) -> tuple[int, str, Secret] | None:
        """uid, name and secret of the user who signs with this access key; None if there is none. The caller wipes the
        secret.
        """
        self._refresh()
        row = self._store.get(ACCESS_KEYS, access_key_id)
        return None if row is None else (row.uid, row.user, self._keyring.unwrap_access_key(row))

    def _uid_for_access_key(self, user: str) -> int:
        uid = self._users.uid_of(user)
        if uid is None:
            raise NotFound(f"there is no Unix user {user!r} here", hint="getent passwd lists them")
        return uid


def _public(row: AccessKeyRow) -> AccessKey:
    return AccessKey(row.access_key_id, row.user, row.uid, row.created)


def _new_id() -> str:
    """AWS's form: the prefix and 16 characters of base32."""
    return _PREFIX + base64.b32encode(os.urandom(10)).decode("ascii")


def _new_secret() -> Secret:
    """AWS's form: 40 characters of base64, which are 240 random bits."""
    return Secret(base64.b64encode(os.urandom(30)))


def _checked_id(access_key_id: str) -> str:
    if not _ACCESS_KEY_ID.fullmatch(access_key_id):
        raise Validation(
            f"{access_key_id!r} is no access key id", hint="it has 16 to 128 letters, digits and underscores"
        )
    return access_key_id


def _checked_secret(secret: Secret) -> Secret:
    if not _SECRET.fullmatch(secret.expose()):
        raise Validation("a secret access key has 16 to 128 printable ASCII characters and no spaces")
    return secret


def _not_himself(user: str, uid: int) -> Validation:
    return Validation(
        f"the KMS knows the user {user!r} with another uid than {uid}, or the uid with another name",
        hint="if it is the same person, unpin the user first: envfs iam unpin",
    )
