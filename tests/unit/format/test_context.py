from __future__ import annotations

import pytest

from envfs.errors import FormatError
from envfs.format.context import EMPTY_CONTEXT, decode_context, decode_labels, encode_context, validate_labels


def test_the_order_of_the_pairs_does_not_count() -> None:
    assert encode_context({"a": "1", "b": "2"}) == encode_context({"b": "2", "a": "1"})


def test_pairs_do_not_run_together() -> None:
    encodings = [encode_context(pairs) for pairs in ({"a": "bc"}, {"ab": "c"}, {"abc": ""}, {"a": "b", "c": ""})]
    assert len(set(encodings)) == 4


def test_the_bytes() -> None:
    assert encode_context({}) == EMPTY_CONTEXT == b"\0\0"
    assert encode_context({"k": "val"}) == b"\0\1\0\1k\0\3val"


def test_decoding_gives_the_pairs_in_order() -> None:
    assert list(decode_context(encode_context({"b": "2", "a": "1"}))) == ["a", "b"]


@pytest.mark.parametrize(
    "pairs",
    [{"": "x"}, {"\ud800": "x"}, {"x": "\udfff"}, {"k": "v" * 8186}, {"k" * 70000: ""}],
    ids=["empty key", "key with a surrogate", "value with a surrogate", "8,193 bytes", "key too long"],
)
def test_what_cannot_be_encoded_is_refused(pairs: dict[str, str]) -> None:
    with pytest.raises(FormatError):
        encode_context(pairs)


@pytest.mark.parametrize("key", ["envfs:volume", "envfs:", "aws:ResourceTag"])
def test_reserved_labels_are_refused_both_ways(key: str) -> None:
    with pytest.raises(FormatError) as caught:
        validate_labels({"fine": "x", key: "y"})
    assert caught.value.hint
    with pytest.raises(FormatError):
        decode_labels(encode_context({"fine": "x", key: "y"}))


def test_labels_that_only_resemble_reserved_ones_are_fine() -> None:
    labels = {"envfs": "1", "Envfs:x": "2", "my:envfs:": "3"}
    validate_labels(labels)
    assert decode_labels(encode_context(labels)) == labels


def test_labels_that_cannot_be_encoded_are_refused() -> None:
    with pytest.raises(FormatError):
        validate_labels({"": "x"})
