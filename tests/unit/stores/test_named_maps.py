"""Names of maps: kept, listed, and refused where they would hide another map or no file could have them."""

from dataclasses import replace
from pathlib import Path

import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.stores.named_maps import NamedMap, named_maps, read_named_map, write_named_map
from lfm_tasks.stores.units.durable import add_checksum

MINE = NamedMap("mine", "probe", "a/one", "b/two", "anchors", 10, "0" * 64)


def test_name__is_read_as_it_was_written_and_moves_to_a_newer_map_of_its_spaces(tmp_path: Path) -> None:
    write_named_map(tmp_path, MINE)
    write_named_map(tmp_path, replace(MINE, name="other", source="c/one"))
    assert read_named_map(tmp_path, "mine") == MINE
    write_named_map(tmp_path, replace(MINE, key="1" * 64))
    assert [one.key[0] for one in named_maps(tmp_path)] == ["1", "0"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "../x"}, r"got the name '../x', expected 1 to 128 .*or give another with --name"),
        ({"name": "con"}, "which Windows reserves for a device"),
        ({"name": "Mine"}, "got the map 'mine', whose name differs only by upper and lower case"),
        ({"source": "z/one"}, "got 'mine' as the name of the map a/one -> b/two, expected another one. Give it with"),
    ],
)
def test_name__that_cannot_be_used_is_refused(tmp_path: Path, changed: dict[str, str], message: str) -> None:
    write_named_map(tmp_path, MINE)
    with pytest.raises(DataError, match=message) as caught:
        write_named_map(tmp_path, replace(MINE, **changed))
    assert caught.value.reason == "bad_name"
    assert read_named_map(tmp_path, "mine") == MINE


def test_unknown_name__offers_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no map 'mien' in the store; there are none yet\. Fit one with lfm-atlas map"):
        read_named_map(tmp_path, "mien")
    write_named_map(tmp_path, MINE)
    with pytest.raises(DataError, match=r"no map 'mien' in the store; did you mean 'mine'"):
        read_named_map(tmp_path, "mien")
    with pytest.raises(DataError, match=r"no map '\.\./maps/mine'"):
        read_named_map(tmp_path, "../maps/mine")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"body": {}}',
        add_checksum({"version": 1}),
        add_checksum({"version": 2, "name": "mine", "key": 3}),
    ],
)
def test_damaged_name__says_what_to_do(tmp_path: Path, content: bytes) -> None:
    write_named_map(tmp_path, MINE)
    (tmp_path / "maps" / "mine.json").write_bytes(content)
    with pytest.raises(DataError, match=r"got a damaged file mine.json .*Remove it and fit the map again"):
        read_named_map(tmp_path, "mine")
