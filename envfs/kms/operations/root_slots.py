"""The slots of the root key: looking at them, adding, removing, replacing. What opens a slot is `envfs.kms.rootkey`'s.

They are the KMS owner's alone, whatever policies say: whoever could add a slot would own all keys. An engine that is
open proves that its owner can open a slot that there is.
"""

from __future__ import annotations

from typing import Final

from envfs.crypto.secret import Secret
from envfs.errors import AccessDenied, LimitExceeded, NotFound, Validation
from envfs.kms.audit.record import Call
from envfs.kms.core import Core
from envfs.kms.model import NO_FACTS, Principal, RequestFacts
from envfs.kms.rootkey import SlotKey, seal_slot
from envfs.kms.schema import ROOT_SLOTS, RootSlotRow

MAX_SLOTS: Final = 32


class RootSlotOperations(Core):
    _root_key: Secret
    _store_id: bytes

    def root_slots(self, principal: Principal, facts: RequestFacts = NO_FACTS) -> list[RootSlotRow]:
        """All slots, oldest first. AccessDenied, here and below, for everybody but the owner."""
        with self._recorded("envfs:ListRootSlots", principal, facts) as call:
            self._check_owner(call)
            return sorted(self._store.find(ROOT_SLOTS), key=lambda row: (row.created, row.slot_id))

    def all_slots(self) -> list[RootSlotRow]:
        """As `root_slots`, without asking who wants to know: for processes that have the root key anyway."""
        return self._store.find(ROOT_SLOTS)

    def add_root_slot(
        self,
        principal: Principal,
        key: SlotKey,
        parameters: bytes,
        *,
        slot_id: bytes | None = None,
        facts: RequestFacts = NO_FACTS,
    ) -> RootSlotRow:
        """A slot more, which `key` opens. LimitExceeded beyond 32."""
        with self._recorded("envfs:AddRootSlot", principal, facts) as call:
            self._check_owner(call)
            row = self._new_slot(key, parameters, slot_id)
            call.parameters = {"slotId": row.slot_id.hex(), "kind": row.kind}
            with self._change(call) as transaction:
                if len(self._store.find(ROOT_SLOTS)) >= MAX_SLOTS:
                    raise LimitExceeded(
                        f"the KMS has {MAX_SLOTS} root-key slots", hint="remove one that is not used any more"
                    )
                transaction.put(ROOT_SLOTS, row)
        return row

    def remove_root_slot(self, principal: Principal, slot_id: bytes, facts: RequestFacts = NO_FACTS) -> RootSlotRow:
        """Whoever has the key of the slot opens the KMS no more. Validation for the last slot, NotFound for none.

        The wrapped root key stays in free space of the files until `erase_removed`.
        """
        with self._recorded("envfs:RemoveRootSlot", principal, facts) as call:
            self._check_owner(call)
            self._store.note_erasure()
            with self._change(call) as transaction:
                row = self._root_slot(slot_id)
                call.parameters = {"slotId": row.slot_id.hex(), "kind": row.kind}
                if len(self._store.find(ROOT_SLOTS)) == 1:
                    raise Validation(
                        "this is the last root-key slot: without it nobody opens the KMS, ever again",
                        hint="add another one first: envfs kms slot add",
                    )
                transaction.delete(ROOT_SLOTS, slot_id)
        return row

    def replace_root_slot(
        self, principal: Principal, slot_id: bytes, key: SlotKey, parameters: bytes, facts: RequestFacts = NO_FACTS
    ) -> RootSlotRow:
        """A new slot in place of another one, both in one transaction: whatever happens, one of them opens. The old
        one is removed as by `remove_root_slot`.
        """
        with self._recorded("envfs:ReplaceRootSlot", principal, facts) as call:
            self._check_owner(call)
            row = self._new_slot(key, parameters)
            call.parameters = {"slotId": slot_id.hex(), "newSlotId": row.slot_id.hex(), "kind": row.kind}
            self._store.note_erasure()
            with self._change(call) as transaction:
                self._root_slot(slot_id)
                transaction.put(ROOT_SLOTS, row)
                transaction.delete(ROOT_SLOTS, slot_id)
        return row

    def keep_slot_of_backup(self, row: RootSlotRow) -> None:
        """The slot that opened the backup which is being restored, if it is none of the KMS's: else there might be
        nothing left that opens it. Whoever opens the backup by it has the root key already.
        """
        if self._store.get(ROOT_SLOTS, row.slot_id) is not None:
            return
        parameters = {"slotId": row.slot_id.hex(), "kind": row.kind}
        with (
            self._recorded("envfs:AddRootSlot", None, NO_FACTS, parameters) as call,
            self._change(call) as transaction,
        ):
            transaction.put(ROOT_SLOTS, row)

    def erase_removed(self) -> bool:
        """Leaves nothing of removed slots in the database or its log. False if another process was in the way: then it
        is tried again, or done by the maintenance of a mount or server.
        """
        return not self._store.erasure_is_due() or self._store.erase()

    def _new_slot(self, key: SlotKey, parameters: bytes, slot_id: bytes | None = None) -> RootSlotRow:
        return seal_slot(self._root_key, self._store_id, key, parameters, self._now(), slot_id)

    def _root_slot(self, slot_id: bytes) -> RootSlotRow:
        row = self._store.get(ROOT_SLOTS, slot_id)
        if row is None:
            raise NotFound(f"there is no root-key slot {slot_id.hex()}", hint="see: envfs kms slot list")
        return row

    @staticmethod
    def _check_owner(call: Call) -> None:
        assert call.principal is not None
        if not call.principal.is_account_root:
            raise AccessDenied(f"{call.principal.arn} does not own the KMS: its root key is its owner's affair")
