from __future__ import annotations

import pytest

from envfs import errors
from envfs.cli import output


def test_an_error_is_its_message_and_the_next_step() -> None:
    error = errors.ConfigError("there is no KMS", hint="envfs kms init")
    assert output.describe_error(error) == ["envfs: there is no KMS", "  next: envfs kms init"]


def test_a_refusal_of_the_kms_carries_its_code() -> None:
    assert output.describe_error(errors.Disabled("the key is disabled")) == [
        "envfs: the key is disabled (DisabledException)"
    ]
    first, hint = output.describe_error(errors.InvalidCiphertext())
    assert first == "envfs: InvalidCiphertextException"
    assert "--context" in hint


def test_an_os_error_names_its_path() -> None:
    assert output.describe_error(FileNotFoundError(2, "No such file or directory", "/x")) == [
        "envfs: /x: No such file or directory"
    ]
    assert output.describe_error(OSError(28, "No space left on device")) == ["envfs: No space left on device"]
    assert output.describe_error(OSError(2, "gone", b"/\xff")) == ["envfs: /\\udcff: gone"]


def test_a_nameless_error_is_its_class() -> None:
    assert output.describe_error(errors.ConfigError()) == ["envfs: ConfigError"]


def test_fields_are_aligned_and_every_kind_of_value_has_a_text(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_fields(
        {"key": None, "file_id": "ab", "sealed": True, "labels": {"a": "b", "c": "d"}, "holes": [0, 3], "none": []}
    )
    assert capsys.readouterr().out == (
        "key      -\nfile id  ab\nsealed   yes\nlabels   a=b, c=d\nholes    0, 3\nnone     -\n"
    )


def test_a_table_is_aligned_without_trailing_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(["A", "LONGER"], [["wide cell", 1], ["x", None]])
    assert capsys.readouterr().out == "A          LONGER\nwide cell  1\nx          -\n"


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "\udcff", "\u202egnp"])
def test_names_of_users_cannot_steer_the_terminal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    output.print_fields({"path": name})
    shown = capsys.readouterr().out.removeprefix("path  ").removesuffix("\n")
    assert shown.isprintable()
    assert "\\" in shown


def test_json_is_one_document_with_the_keys_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"b": "\udcff", "a": 1})
    assert capsys.readouterr().out == '{\n  "b": "\\udcff",\n  "a": 1\n}\n'
