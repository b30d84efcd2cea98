"""How many labels go with which key: beside them the blob has to fit into the header of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from envfs.errors import ConfigError
from envfs.format.context import encode_context
from envfs.format.header import MAX_VARIABLE_SIZE, PREVIOUS_KEY_SIZE
from envfs.kms.foreign.configuration import ForeignKey
from envfs.kms.foreign.endpoint import endpoint_of
from envfs.kms.model import ORIGIN_FOREIGN
from envfs.service.keys import MAX_LABELS, MAX_LABELS_UNDER_FOREIGN_KEY, check_labels_fit
from tests.foreign.faulty_kms import ALIAS, REGION, FaultyKms
from tests.unit.kms.kit import CONTEXT, OWNER

if TYPE_CHECKING:
    from envfs.kms.engine import Engine


def labels_of(size: int) -> dict[str, str]:
    labels = {"name": "x" * (size - 10)}
    assert len(encode_context(labels)) == size
    return labels


def test_labels_leave_room_for_the_blob_of_the_key_that_it_is(engine: Engine, foreign: FaultyKms) -> None:
    own = engine.create_key(OWNER).arn
    made = engine.generate_data_key(OWNER, own, CONTEXT)
    made.plaintext.wipe()
    assert len(made.blob) + PREVIOUS_KEY_SIZE + MAX_LABELS == MAX_VARIABLE_SIZE
    place = ForeignKey(ALIAS, REGION, foreign.url)
    endpoint_of(place)._breaker._succeeded()
    of_another = engine.create_key(OWNER, origin=ORIGIN_FOREIGN, foreign=place).arn
    for key, room in ((own, MAX_LABELS), (of_another, MAX_LABELS_UNDER_FOREIGN_KEY)):
        check_labels_fit(engine, key, labels_of(room))
        with pytest.raises(ConfigError, match=f"room for {room}"):
            check_labels_fit(engine, key, labels_of(room + 1))
