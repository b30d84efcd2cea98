"""Several Unix users on the socket of a server, and on that of a mount; access keys of users over TCP."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from envfs.api.client import SocketClient
from envfs.errors import AccessDenied, ConfigError
from envfs.service.kms_socket import find_sockets
from tests.integration.api.kms_server import Credentials, KmsServer, public_directory, running_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.mounts import Mount
    from tests.integration.users import UnixUser

pytestmark = pytest.mark.users


def call(path: Path, target: str, **members: Any) -> dict[str, Any]:
    with SocketClient(path) as client:
        return client.call(target, members)


@pytest.fixture
def server(alice: UnixUser) -> Iterator[KmsServer]:
    """A server of the test's own: the users of different tests have the same uids."""
    with public_directory() as directory, running_server(directory) as server:
        yield server


@pytest.fixture
def alice(unix_users: Callable[..., list[UnixUser]]) -> UnixUser:
    return unix_users("alice")[0]


def test_everybody_is_who_he_is_on_this_host(
    server: KmsServer, alice: UnixUser, unix_group: Callable[..., str], run_as: Callable[..., Any]
) -> None:
    group = unix_group("finance", alice)
    found = run_as(alice, lambda: call(server.socket, "EnvfsKms.WhoAmI"))
    assert found["Arn"] == f"arn:envfs:iam::000000000000:user/{alice.name}"
    assert found["UserId"] == str(alice.uid)
    assert f"arn:envfs:iam::000000000000:group/{group}" in found["GroupArns"]
    assert not found["IsAccountRoot"]


def test_a_user_may_what_the_key_policy_says(
    server: KmsServer, kms: Any, alice: UnixUser, run_as: Callable[..., Any]
) -> None:
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    with pytest.raises(AccessDenied):
        run_as(alice, lambda: call(server.socket, "TrentService.Encrypt", KeyId=key, Plaintext="AQ=="))
    policy = json.loads(kms.get_key_policy(KeyId=key)["Policy"])
    use = {"AWS": f"arn:envfs:iam::000000000000:user/{alice.name}"}
    policy["Statement"].append({"Effect": "Allow", "Principal": use, "Action": "kms:Encrypt", "Resource": "*"})
    kms.put_key_policy(KeyId=key, Policy=json.dumps(policy))
    assert run_as(alice, lambda: call(server.socket, "TrentService.Encrypt", KeyId=key, Plaintext="AQ=="))["KeyId"]
    with pytest.raises(AccessDenied):
        run_as(alice, lambda: call(server.socket, "TrentService.DescribeKey", KeyId=key))


def test_an_access_key_makes_its_user_the_caller_over_tcp(server: KmsServer, alice: UnixUser) -> None:
    made = call(server.socket, "EnvfsIam.CreateAccessKey", UserName=alice.name)["AccessKey"]
    hers = Credentials(made["AccessKeyId"], made["SecretAccessKey"])
    assert server.client("sts", hers).get_caller_identity()["Arn"].endswith(f":user/{alice.name}")
    with pytest.raises(ClientError, match="AccessDenied"):
        server.client(credentials=hers).list_keys()
    call(server.socket, "EnvfsIam.DeleteAccessKey", AccessKeyId=hers.access_key_id)
    with pytest.raises(ClientError, match="UnrecognizedClientException"):
        server.client(credentials=hers).list_keys()


def test_a_mount_serves_the_kms_to_its_users(
    mounted: Callable[..., Mount], kms_home: Path, alice: UnixUser, run_as: Callable[..., Any]
) -> None:
    mount = mounted()
    (path,) = find_sockets(kms_home)
    assert run_as(alice, lambda: find_sockets(kms_home)) == [path]
    found = run_as(alice, lambda: call(path, "EnvfsKms.WhoAmI"))
    assert found["UserName"] == alice.name
    assert call(path, "EnvfsKms.VerifyStore") == {"Problems": []}
    mount.umount()
    assert find_sockets(kms_home) == []
    assert not path.exists()


def test_a_killed_mount_leaves_a_socket_that_nobody_finds(mounted: Callable[..., Mount], kms_home: Path) -> None:
    mount = mounted()
    (path,) = find_sockets(kms_home)
    mount.kill()
    assert find_sockets(kms_home) == []
    mount.mount()
    (other,) = find_sockets(kms_home)
    assert other != path


def test_the_client_refuses_to_talk_to_strangers(server: KmsServer) -> None:
    with pytest.raises(ConfigError, match=f"uid {os.geteuid()}"):
        SocketClient(server.socket, {os.geteuid() + 1})
    with SocketClient(server.socket, {os.geteuid()}) as client:
        assert client.server.pid == server.process.pid
