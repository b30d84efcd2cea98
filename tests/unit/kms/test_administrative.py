from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from envfs.errors import (
    AccessDenied,
    AlreadyExists,
    Disabled,
    InvalidAliasName,
    LimitExceeded,
    MalformedPolicy,
    NotFound,
    Validation,
)
from envfs.kms.model import KeyManager, KeyState
from envfs.kms.policy.defaults import default_key_policy
from tests.unit.kms.kit import (
    ACCOUNT,
    ALICE,
    BOB,
    CONTEXT,
    OWNER,
    THROUGH_MOUNT,
    audit_records,
    open_kms,
    owner_statement,
    person,
    policy,
    statement,
    users_policy,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from envfs.kms.engine import Engine
    from tests.unit.kms.kit import Clock, People


def test_a_new_key(engine: Engine, clock: Clock) -> None:
    made = engine.create_key(OWNER, description="payroll")
    assert made == engine.describe_key(OWNER, made.arn)
    assert (made.state, made.manager, made.spec, made.usage, made.origin) == (
        KeyState.ENABLED,
        KeyManager.CUSTOMER,
        "SYMMETRIC_DEFAULT",
        "ENCRYPT_DECRYPT",
        "AWS_KMS",
    )
    assert (made.description, made.created, made.enabled) == ("payroll", int(clock.now), True)
    assert engine.get_key_policy(OWNER, made.key_id) == default_key_policy(ACCOUNT)
    assert [entry.arn for entry in engine.list_keys(OWNER)[0]] == [made.arn]


def test_who_may_make_and_list_keys(engine: Engine) -> None:
    for call in (engine.create_key, engine.list_keys, engine.list_aliases):
        with pytest.raises(AccessDenied):
            call(ALICE)
    allow = policy(statement("Allow", None, ["kms:CreateKey", "kms:List*"]))
    engine.put_identity_policy(OWNER, ACCOUNT.group_arn("finance"), "keys", allow)
    made = engine.create_key(ALICE)
    assert [entry.key_id for entry in engine.list_keys(ALICE)[0]] == [made.key_id]
    assert engine.list_aliases(ALICE)[0] == ()


def test_a_description_has_a_limit(engine: Engine) -> None:
    with pytest.raises(Validation):
        engine.create_key(OWNER, description="x" * 8193)


def test_disabling_and_enabling(engine: Engine) -> None:
    key = engine.create_key(OWNER, policy=users_policy(ALICE)).key_id
    blob = engine.generate_data_key(ALICE, key, CONTEXT).blob
    engine.disable_key(OWNER, key)
    assert engine.describe_key(OWNER, key).state is KeyState.DISABLED
    for call in (lambda: engine.decrypt(ALICE, blob, CONTEXT), lambda: engine.generate_data_key(ALICE, key, CONTEXT)):
        with pytest.raises(Disabled) as caught:
            call()
        assert caught.value.code == "DisabledException"
    engine.disable_key(OWNER, key)
    engine.enable_key(OWNER, key)
    engine.decrypt(ALICE, blob, CONTEXT)


def test_using_is_not_managing(engine: Engine) -> None:
    key = engine.create_key(OWNER, policy=users_policy(ALICE)).key_id
    calls: list[Callable[[], object]] = [
        lambda: engine.disable_key(ALICE, key),
        lambda: engine.enable_key(ALICE, key),
        lambda: engine.describe_key(ALICE, key),
        lambda: engine.get_key_policy(ALICE, key),
        lambda: engine.put_key_policy(ALICE, key, users_policy(ALICE)),
        lambda: engine.create_alias(ALICE, "alias/a", key),
    ]
    for call in calls:
        with pytest.raises(AccessDenied, match="user/alice is not allowed to perform kms:"):
            call()
    assert engine.describe_key(OWNER, key).enabled


def test_managing_is_not_using(engine: Engine) -> None:
    """AWS's key administrators: they manage the key and cannot use it (but could allow themselves to)."""
    actions = ["kms:Create*", "kms:Describe*", "kms:Enable*", "kms:List*", "kms:Put*", "kms:Disable*", "kms:Get*"]
    text = policy(owner_statement(), statement("Allow", ALICE.arn, actions))
    key = engine.create_key(OWNER, policy=text).key_id
    engine.disable_key(ALICE, key)
    engine.enable_key(ALICE, key)
    engine.put_key_policy(ALICE, key, text)
    with pytest.raises(AccessDenied):
        engine.generate_data_key(ALICE, key, CONTEXT)


@pytest.mark.parametrize("text", ["", "{}", policy(statement("Allow", "nobody", "kms:*")), "x" * 40_000])
def test_a_bad_policy_makes_no_key_and_changes_none(engine: Engine, text: str) -> None:
    with pytest.raises((MalformedPolicy, LimitExceeded)):
        engine.create_key(OWNER, policy=text)
    assert engine.list_keys(OWNER)[0] == ()
    key = engine.create_key(OWNER).key_id
    with pytest.raises((MalformedPolicy, LimitExceeded)):
        engine.put_key_policy(OWNER, key, text)
    assert engine.get_key_policy(OWNER, key) == default_key_policy(ACCOUNT)


LOCKED_OUT = [
    policy(statement("Allow", ALICE.arn, "kms:*")),
    policy(statement("Allow", ACCOUNT.root_arn, "kms:Decrypt")),
    policy(owner_statement(), statement("Deny", "*", "kms:PutKeyPolicy")),
    policy(owner_statement(), statement("Deny", OWNER.arn, "kms:*")),
    policy(owner_statement() | {"Condition": {"StringEquals": {"kms:ViaService": "envfs"}}}),
    policy({name: value for name, value in owner_statement().items() if name != "Action"}),
]


@pytest.mark.parametrize("text", LOCKED_OUT)
def test_nobody_locks_himself_out_by_accident(engine: Engine, text: str) -> None:
    key = engine.create_key(OWNER).key_id
    with pytest.raises(MalformedPolicy, match="would not allow you to update the key policy"):
        engine.put_key_policy(OWNER, key, text)
    with pytest.raises(MalformedPolicy, match="would not allow you to update the key policy"):
        engine.create_key(OWNER, policy=text)
    assert [entry.key_id for entry in engine.list_keys(OWNER)[0]] == [key]


def test_locking_oneself_out_on_purpose(engine: Engine) -> None:
    key = engine.create_key(OWNER, policy=LOCKED_OUT[0], bypass_lockout_check=True).key_id
    with pytest.raises(AccessDenied):
        engine.put_key_policy(OWNER, key, users_policy(OWNER), bypass_lockout_check=True)
    engine.generate_data_key(ALICE, key, CONTEXT)


def test_the_bypass_can_be_forbidden(engine: Engine) -> None:
    condition = {"Bool": {"kms:BypassPolicyLockoutSafetyCheck": "true"}}
    deny = statement("Deny", "*", "kms:PutKeyPolicy", Condition=condition)
    key = engine.create_key(OWNER, policy=policy(owner_statement(), deny)).key_id
    engine.put_key_policy(OWNER, key, users_policy(ALICE))
    engine.put_key_policy(OWNER, key, policy(owner_statement(), deny))
    with pytest.raises(AccessDenied):
        engine.put_key_policy(OWNER, key, LOCKED_OUT[0], bypass_lockout_check=True)


def test_aliases(engine: Engine, clock: Clock) -> None:
    first, second = engine.create_key(OWNER), engine.create_key(OWNER)
    engine.create_alias(OWNER, "alias/b", first.arn)
    engine.create_alias(OWNER, "alias/a", second.key_id)
    found = engine.list_aliases(OWNER)[0]
    assert [(alias.name, alias.target_key_id) for alias in found] == [
        ("alias/a", second.key_id),
        ("alias/b", first.key_id),
    ]
    assert (found[0].arn, found[0].created) == (ACCOUNT.alias_arn("alias/a"), int(clock.now))
    assert [alias.name for alias in engine.list_aliases(OWNER, first.key_id)[0]] == ["alias/b"]
    assert engine.describe_key(OWNER, "alias/b") == first
    with pytest.raises(AlreadyExists):
        engine.create_alias(OWNER, "alias/a", first.key_id)
    assert engine.describe_key(OWNER, "alias/a") == second


@pytest.mark.parametrize(
    "name", ["pay", "alias/", "alias/a b", "alias/envfs/volume", "alias/aws/ebs", "alias/" + "a" * 251]
)
def test_alias_names_that_are_refused(engine: Engine, name: str) -> None:
    key = engine.create_key(OWNER).key_id
    with pytest.raises(InvalidAliasName):
        engine.create_alias(OWNER, name, key)


def test_an_alias_needs_permission_on_both_sides(engine: Engine) -> None:
    key = engine.create_key(OWNER, policy=policy(owner_statement(), statement("Allow", ALICE.arn, "kms:CreateAlias")))
    with pytest.raises(AccessDenied, match="alias/a"):
        engine.create_alias(ALICE, "alias/a", key.key_id)
    allow = statement("Allow", None, "kms:CreateAlias", Resource=ACCOUNT.alias_arn("alias/a*"))
    engine.put_identity_policy(OWNER, ALICE.arn, "aliases", policy(allow))
    engine.create_alias(ALICE, "alias/a", key.key_id)
    with pytest.raises(AccessDenied):
        engine.create_alias(ALICE, "alias/b", key.key_id)


def test_an_alias_may_name_a_disabled_key(engine: Engine) -> None:
    key = engine.create_key(OWNER).key_id
    engine.disable_key(OWNER, key)
    engine.create_alias(OWNER, "alias/a", key)


def test_service_managed_keys_are_made_once(home: Path, engine: Engine) -> None:
    arn = engine.service_managed_key("alias/envfs/volume")
    assert engine.service_managed_key("alias/envfs/volume") == arn
    with open_kms(home) as other:
        assert other.service_managed_key("alias/envfs/volume") == arn
    assert engine.service_managed_key("alias/envfs/other") != arn
    made = engine.describe_key(OWNER, "alias/envfs/volume")
    assert (made.arn, made.manager) == (arn, KeyManager.SERVICE)
    with pytest.raises(InvalidAliasName):
        engine.service_managed_key("alias/volume")


def test_nobody_changes_a_service_managed_key(engine: Engine) -> None:
    arn = engine.service_managed_key("alias/envfs/volume")
    before = engine.get_key_policy(OWNER, arn)
    calls: list[Callable[[], object]] = [
        lambda: engine.disable_key(OWNER, arn),
        lambda: engine.enable_key(OWNER, arn, THROUGH_MOUNT),
        lambda: engine.put_key_policy(OWNER, arn, users_policy(OWNER), bypass_lockout_check=True),
        lambda: engine.create_alias(OWNER, "alias/mine", arn),
    ]
    allow = policy(statement("Allow", None, "kms:*"))
    engine.put_identity_policy(OWNER, OWNER.arn, "all", allow)
    for call in calls:
        with pytest.raises(AccessDenied, match="is managed by envfs"):
            call()
    assert engine.get_key_policy(OWNER, arn) == before
    assert engine.describe_key(OWNER, arn).enabled
    blob = engine.generate_data_key(ALICE, arn, CONTEXT, THROUGH_MOUNT).blob
    engine.decrypt(BOB, blob, CONTEXT, THROUGH_MOUNT)
    with pytest.raises(AccessDenied):
        engine.decrypt(OWNER, blob, CONTEXT)


def test_users_are_pinned_when_a_policy_names_them(engine: Engine, people: People) -> None:
    engine.create_key(OWNER, policy=users_policy(ALICE))
    assert engine.confirm_pin(1001, "alice")
    assert not engine.confirm_pin(2001, "alice")
    assert not engine.confirm_pin(1001, "carol")


def test_a_policy_cannot_name_a_user_who_is_not_there(engine: Engine, people: People) -> None:
    carol = person("carol", 1009)
    with pytest.raises(MalformedPolicy, match="there is no user 'carol'"):
        engine.create_key(OWNER, policy=users_policy(carol))
    people.uids["carol"] = 1009
    key = engine.create_key(OWNER, policy=users_policy(carol)).key_id
    del people.uids["carol"]  # known from before: the policy can still be put
    engine.put_key_policy(OWNER, key, users_policy(carol, ALICE))


def test_a_policy_cannot_name_a_user_who_became_another(engine: Engine, people: People) -> None:
    engine.create_key(OWNER, policy=users_policy(ALICE))
    people.uids["alice"] = 2001
    with pytest.raises(MalformedPolicy, match="had the uid 1001 and now has 2001"):
        engine.create_key(OWNER, policy=users_policy(ALICE))
    engine.unpin_user(OWNER, "alice")
    engine.create_key(OWNER, policy=users_policy(ALICE))
    assert engine.confirm_pin(2001, "alice")
    people.uids["twin"] = 2001
    with pytest.raises(MalformedPolicy, match="is pinned to another name"):
        engine.create_key(OWNER, policy=users_policy(person("twin", 2001)))


def test_users_are_pinned_when_they_get_a_policy(engine: Engine, people: People) -> None:
    """Who never called, was deleted and made again as somebody else, does not leave that one his policy."""
    allow = policy(statement("Allow", None, "kms:*"))
    engine.put_identity_policy(OWNER, ALICE.arn, "all", allow)
    assert not engine.confirm_pin(2001, "alice")
    people.uids["alice"] = 2001
    with pytest.raises(Validation, match="had the uid 1001 and now has 2001"):
        engine.put_identity_policy(OWNER, ALICE.arn, "more", allow)
    engine.put_identity_policy(OWNER, ACCOUNT.user_arn("yet to come"), "all", allow)
    engine.put_identity_policy(OWNER, ACCOUNT.group_arn("staff"), "all", allow)


def test_unpinning_is_for_the_owner(engine: Engine) -> None:
    engine.confirm_pin(1001, "alice")
    with pytest.raises(AccessDenied):
        engine.unpin_user(ALICE, "alice")
    with pytest.raises(NotFound):
        engine.unpin_user(OWNER, "bob")
    engine.unpin_user(OWNER, "alice")
    assert engine.confirm_pin(2001, "alice")


def test_pins_hold_in_other_processes(home: Path, engine: Engine) -> None:
    assert engine.confirm_pin(1001, "alice")
    with open_kms(home) as other:
        assert not other.confirm_pin(2001, "alice")
        other.unpin_user(OWNER, "alice")
    assert engine.confirm_pin(2001, "alice")
    assert not engine.confirm_pin(1001, "alice")


def test_identity_policies(engine: Engine) -> None:
    first, second = policy(statement("Allow", None, "kms:ListKeys")), policy(statement("Deny", None, "kms:*"))
    engine.put_identity_policy(OWNER, ALICE.arn, "a", first)
    engine.list_keys(ALICE)[0]
    engine.put_identity_policy(OWNER, ACCOUNT.group_arn("finance"), "b", second)
    with pytest.raises(AccessDenied, match="denied by Deny statement number 1 of identity policy 'b'"):
        engine.list_keys(ALICE)[0]
    assert engine.get_identity_policy(OWNER, ALICE.arn, "a") == first
    assert engine.list_identity_policies(OWNER, ALICE.arn) == ("a",)
    engine.delete_identity_policy(OWNER, ACCOUNT.group_arn("finance"), "b")
    engine.list_keys(ALICE)[0]
    engine.put_identity_policy(OWNER, ALICE.arn, "a", second)
    with pytest.raises(AccessDenied):
        engine.list_keys(ALICE)[0]


def test_identity_policies_are_for_whoever_is_allowed_to(engine: Engine) -> None:
    text = policy(statement("Allow", None, "kms:*"))
    with pytest.raises(AccessDenied):
        engine.put_identity_policy(ALICE, ALICE.arn, "a", text)
    grant = statement("Allow", None, ["iam:PutUserPolicy", "iam:GetUserPolicy"], Resource=BOB.arn)
    engine.put_identity_policy(OWNER, ALICE.arn, "iam", policy(grant))
    engine.put_identity_policy(ALICE, BOB.arn, "a", text)
    assert engine.get_identity_policy(ALICE, BOB.arn, "a") == text
    for call in (
        lambda: engine.put_identity_policy(ALICE, ALICE.arn, "a", text),
        lambda: engine.put_identity_policy(ALICE, ACCOUNT.group_arn("staff"), "a", text),
        lambda: engine.delete_identity_policy(ALICE, BOB.arn, "a"),
        lambda: engine.list_identity_policies(ALICE, BOB.arn),
    ):
        with pytest.raises(AccessDenied):
            call()


def test_bad_identity_policies_are_refused(engine: Engine) -> None:
    text = policy(statement("Allow", None, "kms:*"))
    with pytest.raises(MalformedPolicy):
        engine.put_identity_policy(OWNER, ALICE.arn, "a", policy(statement("Allow", "*", "kms:*")))
    for target, name in ((ACCOUNT.root_arn, "a"), ("alice", "a"), (ALICE.arn, ""), (ALICE.arn, "a b")):
        with pytest.raises(Validation):
            engine.put_identity_policy(OWNER, target, name, text)
    for call in (engine.get_identity_policy, engine.delete_identity_policy):
        with pytest.raises(NotFound):
            call(OWNER, ALICE.arn, "a")


@pytest.mark.parametrize("forbid", ["key policy", "identity policy"])
def test_a_right_that_is_lost_in_the_middle_of_a_call_is_lost(
    home: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, forbid: str
) -> None:
    """Another process takes alice's right away after she was authorised and before the change."""
    admin = policy(owner_statement(), statement("Allow", ALICE.arn, "kms:*"))
    key = engine.create_key(OWNER, policy=admin).key_id
    prepare = engine._recorder.prepare

    def meanwhile() -> None:
        prepare()
        with open_kms(home) as other:
            if forbid == "key policy":
                other.put_key_policy(OWNER, key, policy(owner_statement()))
            else:
                other.put_identity_policy(OWNER, ALICE.arn, "no", policy(statement("Deny", None, "kms:*")))

    monkeypatch.setattr(engine._recorder, "prepare", meanwhile)
    with pytest.raises(AccessDenied):
        engine.disable_key(ALICE, key)
    assert engine.describe_key(OWNER, key).enabled


def test_every_call_leaves_one_record(home: Path, engine: Engine) -> None:
    key = engine.create_key(OWNER, policy=users_policy(ALICE)).key_id
    engine.create_alias(OWNER, "alias/a", key)
    with pytest.raises(AccessDenied):
        engine.disable_key(ALICE, key)
    engine.disable_key(OWNER, key)
    engine.service_managed_key("alias/envfs/volume")
    engine.list_keys(OWNER)[0]
    with pytest.raises(NotFound):
        engine.describe_key(OWNER, "alias/none")
    engine.put_identity_policy(OWNER, ALICE.arn, "p", policy(statement("Deny", None, "kms:*")))
    told = [
        (one["eventSource"], one["eventName"], one.get("errorCode"), one["readOnly"]) for one in audit_records(home)
    ]
    assert told == [
        ("kms.envfs", "CreateKey", None, False),
        ("kms.envfs", "CreateAlias", None, False),
        ("kms.envfs", "DisableKey", "AccessDeniedException", False),
        ("kms.envfs", "DisableKey", None, False),
        ("kms.envfs", "CreateKey", None, False),
        ("kms.envfs", "ListKeys", None, True),
        ("kms.envfs", "DescribeKey", "NotFoundException", True),
        ("iam.envfs", "PutUserPolicy", None, False),
    ]


def test_a_change_without_a_record_does_not_happen(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    key = engine.create_key(OWNER).key_id

    def refuse(_: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(engine._recorder._sink, "write", refuse)
        for call in (lambda: engine.disable_key(OWNER, key), lambda: engine.create_key(OWNER)):
            with pytest.raises(OSError, match="No space left"):
                call()
    assert engine.describe_key(OWNER, key).enabled
    assert len(engine.list_keys(OWNER)[0]) == 1


def test_a_stranger_is_recorded_as_denied(engine: Engine, home: Path) -> None:
    engine.record_stranger(4711, 100, 42, AccessDenied("uid 4711 has no name"))
    record = audit_records(home)[-1]
    assert (record["eventSource"], record["eventName"]) == ("envfs.envfs", "IdentifyCaller")
    assert (record["errorCode"], record["requestParameters"]) == (
        "AccessDeniedException", {"uid": 4711, "gid": 100, "pid": 42},
    )  # fmt: skip
