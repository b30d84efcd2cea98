"""The fixtures of tests/integration: a scenario is an integration test that takes a whole day."""

from __future__ import annotations

from tests.integration.conftest import (  # noqa: F401  (fixtures are found by their names here)
    _base,
    _command,
    _user_table,
    directory,
    envfs,
    kms_home,
    lower,
    mounted,
    pytest_itemcollected,
    run_as,
    unix_group,
    unix_users,
    volume,
)
