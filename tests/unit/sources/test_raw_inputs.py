"""Texts of a dataset: the same from every kind of table, and every bad row told with its place."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest

from lfm_tasks.catalog.datasets import Texts
from lfm_tasks.errors import DataError
from lfm_tasks.sources.raw_inputs import RawInputs, RawRows, read_texts

TEXTS = ["first, with a comma", 'second "quoted"\nof two lines', "dritte Zeile: äöü", "四", "\U0001f600 five"]
IDS = ["a", "007", "c", "d e", "é"]
LABELS = ["x", "y", "x", "x", "y"]
ROWS = [{"id": i, "text": t, "label": n, "more": [1]} for i, t, n in zip(IDS, TEXTS, LABELS, strict=True)]


def table() -> pa.Table:
    return pa.table({"id": IDS, "text": TEXTS, "label": LABELS})


def write_saved(folder: Path) -> None:
    folder.mkdir(parents=True)
    with pa.OSFile(str(folder / "data-00000.arrow"), "wb") as file, pa.ipc.new_stream(file, table().schema) as writer:
        writer.write_table(table(), max_chunksize=2)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000.arrow"}]}))


def write_arrow(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table().schema) as writer:
        writer.write_table(table(), max_chunksize=2)


WRITE = {
    "t.jsonl": lambda path: path.write_text("\n".join(json.dumps(row) for row in ROWS)),
    "bom.jsonl": lambda path: path.write_text(
        "\ufeff" + "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n", encoding="utf-8"
    ),
    "t.csv": lambda path: pyarrow.csv.write_csv(table(), path),
    "t.tsv": lambda path: pyarrow.csv.write_csv(table(), path, pyarrow.csv.WriteOptions(delimiter="\t")),
    "t.parquet": lambda path: pyarrow.parquet.write_table(table(), path, row_group_size=2),
    "t.feather": lambda path: pyarrow.feather.write_feather(table(), path),
    "t.arrow": write_arrow,
    "saved": write_saved,
}


def read(folder: Path, path: str, **keys: Any) -> RawRows:
    return read_texts("docs", Texts(path=path, **({"id": "id", "label": "label"} | keys)), folder)


@pytest.mark.parametrize("name", WRITE)
def test_texts__are_the_same_from_every_kind_of_table(name: str, tmp_path: Path) -> None:
    WRITE[name](tmp_path / name)

    rows = read(tmp_path, name)

    inputs = rows.inputs
    assert isinstance(inputs, RawInputs)
    assert (inputs.kind, len(inputs)) == ("texts", 5)
    assert inputs.read(np.array([4, 0, 1, 1])) == [TEXTS[4], TEXTS[0], TEXTS[1], TEXTS[1]]
    assert inputs.lengths().tolist() == [len(text) for text in TEXTS]
    assert rows.ids.tolist() == IDS
    assert rows.labels is not None
    assert rows.labels.tolist() == LABELS
    (tmp_path / "reference.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
    assert inputs.digest() == read(tmp_path, "reference.jsonl").inputs.digest()


def test_digest__follows_content_and_order(tmp_path: Path) -> None:
    lists = {"a": ["ab", "c"], "b": ["a", "bc"], "c": ["c", "ab"], "d": ["ab", "c", "d"]}
    for name, texts in lists.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(texts))
    assert len({read(tmp_path, f"{name}.txt", id=None, label=None).inputs.digest() for name in lists}) == len(lists)


def test_lines__are_numbered_and_whole_shards_follow_each_other(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes("\ufeffeins\r\nzwei\ndrei".encode())
    assert read(tmp_path, "t.txt", id=None, label=None).ids.tolist() == ["0", "1", "2"]
    for number in (0, 1, 10):
        (tmp_path / f"part-{number:02}.jsonl").write_text(json.dumps({"id": number, "text": f"t{number}"}))
    rows = read(tmp_path, "part-*.jsonl", label=None)
    assert (rows.ids.tolist(), rows.inputs.read(np.arange(3))) == (["0", "1", "10"], ["t0", "t1", "t10"])
    assert read(tmp_path, "part-*.jsonl", id="positional", label=None).ids.tolist() == ["0", "1", "2"]


def test_split__is_a_folder_of_the_saved_dataset(tmp_path: Path) -> None:
    write_saved(tmp_path / "saved" / "test")
    (tmp_path / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    assert read(tmp_path, "saved", split="test").ids.tolist() == IDS
    with pytest.raises(DataError, match="got a dataset of the splits train, test, expected one of them"):
        read(tmp_path, "saved")


@pytest.mark.parametrize(
    ("values", "expected"),
    [([3, 1, 2], np.array([3, 1, 2])), ([True, False, True], np.array([1, 0, 1])), (["b", None, "a"], ["b", "", "a"]),
     ([1, "one", 2.5], ["1", "one", "2.5"]), ([2**70, 1, 2], [str(2**70), "1", "2"])],
)  # fmt: skip
def test_labels__stay_numbers_or_become_text(values: list[Any], expected: Any, tmp_path: Path) -> None:
    rows = [{"id": number, "text": "t", "label": value} for number, value in enumerate(values)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    labels = read(tmp_path, "t.jsonl").labels
    assert labels is not None
    assert labels.tolist() == list(expected)


GOOD = '{"id": 1, "text": "one"}\n'
NAMED = '{"id": "a", "text": "one"}\n'
BAD = {
    "not JSON": (GOOD + "{oops}\n", "bad_inputs", r"^t\.jsonl:2: got a line that is no JSON \(Expecting"),
    "not an object": (GOOD + "[1]\n", "bad_inputs", r"^t\.jsonl:2: got a JSON list, expected an object"),
    "another key": ('{"id": 1, "txt": "a"}', "bad_inputs", r"^t\.jsonl:1: got an object without the key 'text'; did"),
    "null": (GOOD + '{"id": 2, "text": null}', "bad_inputs", r"^t\.jsonl:2: got no text \(null\), expected text"),
    "number": (GOOD + '\n{"id": 2, "text": 7}', "bad_inputs", r"^t\.jsonl:3: got a int, expected text"),
    "empty": (GOOD + '{"id": 2, "text": " \\n"}', "bad_inputs", r"^t\.jsonl:2: got an empty text, expected words"),
    "surrogate": (GOOD + '{"id": 2, "text": "\\ud800"}', "bad_inputs", r"^t\.jsonl:2: got half of a surrogate pair"),
    "deep": (GOOD + "[" * 100_000, "bad_inputs", r"^t\.jsonl:2: got a line that is no JSON"),
    "no rows": ("\n\n", "bad_inputs", r"^t\.jsonl: got no texts, expected one a row"),
    "same id": (GOOD + GOOD, "bad_ids", r"^t\.jsonl: got 1 ids .* among 2, first '1' \(in t\.jsonl:1 and t"),
    "no id": (GOOD + '{"id": null, "text": "a"}', "bad_ids", r"^t\.jsonl:2: got no value as an id, expected text"),
    "fraction": ('{"id": 1.5, "text": "a"}', "bad_ids", r"^t\.jsonl:1: got the float 1\.5 as an id"),
    "list": ('{"id": [1], "text": "a"}', "bad_inputs", r"^t\.jsonl:1: got a list as an id or a label"),
    "empty id": (
        NAMED + '{"id": "", "text": "a"}',
        "bad_ids",
        r"^t\.jsonl: got 1 empty ids, first in t\.jsonl:2. Name",
    ),
    "blank id": (NAMED + '\n{"id": " \u3000", "text": "a"}', "bad_ids", r"got 1 empty ids, first in t\.jsonl:3"),
    "control": (
        '{"id": "a\\tb", "text": "a"}',
        "bad_ids",
        r"control character in the id 'a\\tb', in t\.jsonl:1, expected",
    ),
    "line break": ('{"id": "a\u2028b", "text": "a"}', "bad_ids", r"a control character in the id 'a\\u2028b'"),
    "composed": (
        '{"id": "caf\u00e9", "text": "a"}\n{"id": "cafe\u0301", "text": "b"}',
        "bad_ids",
        r"composed in two ways, 'caf\\xe9' in t\.jsonl:1 and 'cafe\\u0301' in t\.jsonl:2, expected one way \(NFC\)",
    ),
    "text after numbers": (
        GOOD + '{"id": "b", "text": "a"}',
        "bad_ids",
        r"^t\.jsonl:2: got text as an id, 'b', expected numbers as in t\.jsonl:1",
    ),
    "number after texts": (
        NAMED + '{"id": 2, "text": "a"}',
        "bad_ids",
        r"^t\.jsonl:2: got a number as an id, 2, expected texts as in t\.jsonl:1",
    ),
    "cut line": (GOOD + '{"id": 2,\n', "bad_inputs", r"^t\.jsonl:2: got a line that is no JSON \(.* at its end\)"),
    "in a line": (GOOD + '{"id": 2 oops}\n', "bad_inputs", r"^t\.jsonl:2: got a line that is no JSON \(.*column 10\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_row__is_told_with_its_place(case: str, tmp_path: Path) -> None:
    content, reason, message = BAD[case]
    (tmp_path / "t.jsonl").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, "t.jsonl", label=None)
    assert caught.value.reason == reason


def test_bad_tables__are_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,text\n1,a\n2\n")
    with pytest.raises(DataError, match=r"t\.csv: cannot be read \(.*Expected 2 columns, got 1"):
        read(tmp_path, "t.csv", label=None)
    (tmp_path / "t.csv").write_text("id,text,text\n1,a,b\n")
    with pytest.raises(DataError, match=r"t\.csv: got several columns 'text', expected one"):
        read(tmp_path, "t.csv", label=None)
    (tmp_path / "t.csv").write_text("id,text\n1,\n")
    with pytest.raises(DataError, match=r"t\.csv: row 0 \(counted from 0\): got an empty text"):
        read(tmp_path, "t.csv", label=None)
    with pytest.raises(DataError, match=r"t\.csv: got no column 'txt', expected one; did you mean 'text'"):
        read(tmp_path, "t.csv", text="txt", label=None)
    (tmp_path / "t.txt").write_bytes(b"one\n\xff\n")
    with pytest.raises(DataError, match=r"t\.txt:2: got text that is not UTF-8 \(0xff after 0 bytes"):
        read(tmp_path, "t.txt", id=None, label=None)
    with pytest.raises(DataError, match=r"x\.jsonl: no such file"):
        read(tmp_path, "x.jsonl")
    (tmp_path / "t.xlsx").touch()
    with pytest.raises(DataError, match=r"t\.xlsx: got a \.xlsx file, expected one of \.jsonl, .*\.txt\. Convert it"):
        read(tmp_path, "t.xlsx")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"folder: got a folder that is no saved dataset"):
        read(tmp_path, "folder")
    with pytest.raises(DataError, match=r"none/\*\.jsonl: got no file that matches, and there is no folder 'none'"):
        read(tmp_path, "none/*.jsonl")
    pyarrow.parquet.write_table(pa.table({"id": [1, 2], "text": ["a", None]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet: row 1 \(counted from 0\): got no text \(null\)"):
        read(tmp_path, "t.parquet", label=None)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".txt"])
def test_table__in_another_encoding_is_told(suffix: str, encoding: str, tmp_path: Path) -> None:
    rows = {
        ".jsonl": '{"id": "a", "text": "one"}\n{"id": "b", "text": "été"}\n',
        ".csv": "id,text\na,été\n",
        ".tsv": "id\ttext\na\tété\n",
        ".txt": "one\nété\n",
    }
    (tmp_path / f"t{suffix}").write_bytes(rows[suffix].encode(encoding))
    line = 2 if encoding == "latin-1" else 1
    found = r"text that is not UTF-8 \(0xe9 after \d+ bytes; Latin-1" if line == 2 else "text in UTF-16"
    with pytest.raises(DataError, match=rf"^t\{suffix}:{line}: got {found}.*Save the file as UTF-8") as caught:
        read(tmp_path, f"t{suffix}", id=None if suffix == ".txt" else "id", label=None)
    assert caught.value.reason == "bad_inputs"


def test_glob__does_not_follow_links_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "outside.jsonl").write_text(GOOD)
    (tmp_path / "catalog" / "data").mkdir(parents=True)
    (tmp_path / "catalog" / "data" / "link.jsonl").symlink_to(tmp_path / "outside.jsonl")
    with pytest.raises(DataError, match=r"data/\*\.jsonl: got the link 'link\.jsonl', which leads out of the folder"):
        read(tmp_path / "catalog", "data/*.jsonl", label=None)


def test_more_text_than_fits__is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.txt").write_text("abc\n" * 10)
    monkeypatch.setattr("lfm_tasks.sources.raw_inputs.MAX_MEMORY_BYTES", 20)
    with pytest.raises(DataError, match=r"t\.txt: got more text than that, expected at most 0 GiB"):
        read(tmp_path, "t.txt", id=None, label=None)
