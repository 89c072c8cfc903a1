"""Descriptions beside weights: a damaged one is refused by its name, and a sound one is read once."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.sources.files import descriptions
from lfm_tasks.sources.files.descriptions import check_max_tokens, check_tokenizer, cut_texts, read_json
from lfm_tasks.sources.files.digests import DigestMemory

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 12\n"
DAMAGED: dict[str, tuple[str, bytes, str]] = {
    "cut off": ("special_tokens_map.json", b'{"pad_token"', r"zoo/m/special_tokens_map.json: got no JSON \(.*line 1"),
    "a list": ("added_tokens.json", b"[]", r"added_tokens.json: got a JSON list, expected an object"),
    "git-lfs": ("vocab.json", LFS.encode(), r"zoo/m/vocab.json: got a git-lfs pointer .*Fetch it: git lfs pull"),
    "no text": ("vocab.txt", b"\xff\xfe[\0P\0", r"zoo/m/vocab.txt: got bytes that are no UTF-8, expected text"),
    "empty": ("tokenizer.model", b"", r"zoo/m/tokenizer.model: got an empty file, expected a tokenizer's"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_check_tokenizer__refuses_a_damaged_file(tmp_path: Path, case: str) -> None:
    file, content, message = DAMAGED[case]
    (tmp_path / file).write_bytes(content)

    with pytest.raises(DataError, match=message) as caught:
        check_tokenizer([tmp_path / file], "zoo/m", DigestMemory())

    assert caught.value.reason == "damaged_source"


def test_check_tokenizer__refuses_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"zoo/m/vocab.txt: cannot be read") as caught:
        check_tokenizer([tmp_path / "vocab.txt"], "zoo/m", DigestMemory())
    assert caught.value.reason == "missing_source"


def word_level(**changes: Any) -> dict[str, Any]:
    pytest.importorskip("tokenizers", reason="needs the extra [hf]")
    special = {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]}}
    single = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {
        "version": "1.0",
        "added_tokens": [],
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special},
        "model": {"type": "WordLevel", "vocab": {"a": 0, "[CLS]": 1}, "unk_token": "a"},
        **changes,
    }


NOT_A_TOKENIZER: dict[str, dict[str, Any]] = {
    "no model": {"model": None},
    "unknown model": {"model": {"type": "Telepathy"}},
    "no vocabulary": {"model": {"type": "WordLevel", "unk_token": "a"}},
    "of tomorrow": {"version": "2.0"},
    "unknown key": {"added_tokens": {}},
}


@pytest.mark.parametrize("case", NOT_A_TOKENIZER)
def test_check_tokenizer__refuses_what_its_library_cannot_read(tmp_path: Path, case: str) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(word_level(**NOT_A_TOKENIZER[case])))

    message = r"zoo/m/tokenizer.json: got a tokenizer that tokenizers \d+\.\S+ cannot read \(.+\), .*save_pretrained"
    with pytest.raises(DataError, match=message) as caught:
        check_tokenizer([tmp_path / "tokenizer.json"], "zoo/m", DigestMemory())

    assert caught.value.reason == "damaged_source"


def test_check_tokenizer__counts_special_tokens_and_reads_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(word_level()))
    os.utime(file, (1, 1))
    memory = DigestMemory()
    assert check_tokenizer([file], "zoo/m", memory) == 1

    def unread(*_: Any) -> None:
        raise AssertionError("the tokenizer was read")

    monkeypatch.setattr(descriptions, "open_tokenizer", unread)
    assert check_tokenizer([file], "zoo/m", DigestMemory(json.loads(memory.as_json()))) == 1
    file.write_text(json.dumps(word_level(added_tokens=None)))
    with pytest.raises(AssertionError):
        check_tokenizer([file], "zoo/m", memory)


def test_check_max_tokens__wants_room_for_words() -> None:
    check_max_tokens(3, 2, "m")
    check_max_tokens(None, 2, "m")
    check_max_tokens(1, None, "m")
    with pytest.raises(DataError, match=r"m: got max_tokens: 2 and a tokenizer that adds 2 special tokens"):
        check_max_tokens(2, 2, "m")


def test_cut_texts__says_the_share() -> None:
    assert cut_texts(0, 9, 3, 2) == ()
    assert cut_texts(3, 9, 3, 2) == ("3 of 9 texts (33.3 %) were cut at 3 tokens, 2 of them special ones",)
    assert cut_texts(9, 9, 3, 0) == ("9 of 9 texts (100.0 %) were cut at 3 tokens",)


def test_read_json__names_the_place_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{\n"a": 1,\n}')
    with pytest.raises(DataError, match=r"zoo/m/config.json: got no JSON \(.*line 3 column 1"):
        read_json(tmp_path / "config.json", "zoo/m/config.json")
