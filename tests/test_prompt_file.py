"""A file of prompts: what is read, and what is refused in one sentence."""

import pytest

from fam_ext.errors import UsageError
from fam_ext.prompt_file import read_prompts


def test_each_line_that_is_not_empty_is_a_prompt(tmp_path):
    path = tmp_path / "p.txt"
    path.write_text(
        "\ufeffa cat\n\n  a dog \r\na\u2028cat\n", encoding="utf-8"
    )  # an editor's mark at the start is none
    assert read_prompts(path) == ["a cat", "a dog", "a\u2028cat"]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"\n \n", "no line with a prompt"),
        (b"\xff\xfe", "no text in UTF-8"),
        ("a cat\n".encode("utf-16-le"), "no text in UTF-8"),
        ("é".encode() * (1 << 20), "larger than 1 MB"),  # cut within a letter
        (b"a" * (1 << 20) + b"b", "larger than 1 MB"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_none_is_one_sentence(tmp_path, data, sentence):
    path = tmp_path / "p.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UsageError, match=sentence):
        read_prompts(path)
