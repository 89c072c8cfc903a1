"""Values of the environment: what opens files gets them, what people read does not."""

import copy
import errno
import json
import logging
import os
import pickle
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from lfm_tasks.catalog.names import fill_pattern
from lfm_tasks.errors import DataError
from lfm_tasks.variables import (
    NOTHING_HIDDEN,
    ExpandedText,
    HiddenValues,
    hidden_values,
    hiding_logs,
    hiding_values,
    names_variable,
)

ROOT = Path("/home/me/project")
# Of several parts, short, a word of messages, a part of a word, with signs of patterns, encoded, not ASCII, absolute.
VALUES = [
    "a/b/s3cret", "xy", "model", "s3cr", "hunter2-of-the-zoo", "s3 c+r(e)t.*[$", "s%2Fret", "schlüssel", "/abs/s3c/",
]  # fmt: skip
PATTERNS = ["${KEY}/{layer}.npy", "zoo/x${KEY}y_{layer}.npy", "zoo/${KEY}", "{model}/${KEY}/a"]


def text(value: str, pattern: str) -> ExpandedText:
    before, after = pattern.split("${KEY}")
    return ExpandedText(((before, before), (value, "${KEY}"), (after, after)))


def hiding(value: str, *patterns: str, known: tuple[str, ...] = ()) -> HiddenValues:
    return hidden_values({"KEY": value}, [text(value, pattern) for pattern in patterns], ROOT, known)


@pytest.mark.parametrize("value", VALUES)
def test_text__is_its_value_for_programs_and_as_written_for_people(value: str, tmp_path: Path) -> None:
    expanded = text(value, "zoo/${KEY}/{layer}.npy")

    for one in (expanded, pickle.loads(pickle.dumps(expanded)), copy.deepcopy(expanded)):  # noqa: S301 - our own
        assert one == f"zoo/{value}/{{layer}}.npy"
        assert (str(one), json.loads(json.dumps(one))) == (one, one)
        assert os.path.join(tmp_path, one) == str(tmp_path) + os.sep + str(one)
        assert f"{one}" == "zoo/${KEY}/{layer}.npy"
        assert f"{one!r}" == "'zoo/${KEY}/{layer}.npy'"
        assert (tmp_path / one).parts[-1] == "{layer}.npy"
        assert type((tmp_path / one).name) is str
    filled = fill_pattern(expanded, layer="fc1", KEY="other")
    assert (str(filled), f"{filled}") == (f"zoo/{value}/fc1.npy", "zoo/${KEY}/fc1.npy")


def test_part_of_a_path__is_known_for_a_value() -> None:
    assert names_variable("x${KEY}y")
    assert names_variable(text("a", "${KEY}"))
    assert not names_variable("{layer}.npy")


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("value", VALUES)
def test_path__is_hidden_in_every_form_that_libraries_give_it(value: str, pattern: str) -> None:
    hide = hiding(value, pattern)
    used = str(text(value, pattern)).replace("{layer}", "fc1").replace("{model}", "small")
    path = str(ROOT / used)

    forms = [path, repr(path), ascii(path), json.dumps(path), quote(path), f"file://{quote(path)}", f"{path}: gone"]
    for form in forms:
        hidden = hide(f"No such file or directory: {form}, of the model small")
        assert "${KEY}" in hidden
        assert (value.strip("/").rpartition("/")[2] in hidden.replace("of the model small", "")) is False, hidden
        assert hidden.startswith("No such file or directory: ")
        assert hidden.endswith(", of the model small")
        assert hide(hidden) == hidden


@pytest.mark.parametrize("name", ["xy_fc1.npy", "modely_fc1.npy", "s3cry_fc1.npy"])
def test_name_of_a_file_with_a_value_in_it__is_hidden(name: str) -> None:
    hide = hiding(name.removesuffix("y_fc1.npy") if name[0] != "x" else "x", "${KEY}y_{layer}.npy")

    assert hide(f"{name}: damaged") == "${KEY}y_fc1.npy: damaged"


def test_path_with_braces__is_hidden() -> None:
    hide = hiding("xy", "out{${KEY}/a}b{layer}/z")

    assert hide("/home/me/project/out{xy/a}b: gone") == "/home/me/project/out{${KEY}/a}b: gone"


def test_address_with_a_value__is_hidden() -> None:
    hide = hiding("xy", "s3://zoo-${KEY}/{model}.npz")

    hidden = hide("s3://zoo-xy/small.npz: 403, zoo-xy: no such bucket")
    assert hidden == "s3://zoo-${KEY}/small.npz: 403, zoo-${KEY}: no such bucket"


def test_value_that_is_a_word__leaves_messages_as_they_are() -> None:
    message = "model small: got no model 'model' in 'model/layer0'; the model needs /data/model-zoo"
    assert hiding("model", "zoo/${KEY}/{layer}.npy")(message) == message
    message = "resnet: no layer of resnet/layer0 is a resnet"
    assert hiding("resnet", "zoo/${KEY}/{layer}.npy", known=("resnet",))(message) == message
    for number in ("10", "4096"):
        assert hiding(number, "zoo/${KEY}/{layer}.npy")("got 10 rows of 4096") == "got 10 rows of 4096"


@pytest.mark.parametrize("value", ["", ".", "..", "/", "./"])
def test_value_that_names_nothing__hides_nothing(value: str) -> None:
    message = "/home/me/project/zoo: no such folder ../zoo"
    assert hiding(value, "${KEY}", "${KEY}/zoo")(message) == message


def test_parts_of_a_value__are_hidden_unless_somebody_wrote_them_openly() -> None:
    hide = hiding("/scratch/project/s3cret", "${KEY}/a.npz")

    assert hide("no folder 's3cret' in '/scratch'") == "no folder '${KEY}' in '/${KEY}'"
    assert hide(f"{ROOT}/data_catalog.yaml") == f"{ROOT}/data_catalog.yaml"


def test_hidden_values__show_themselves_to_nobody() -> None:
    hide = hiding("hunter2-of-the-zoo", "${KEY}/a.npz")

    assert "hunter2" not in repr(hide)
    assert "hunter2" not in repr(pickle.loads(pickle.dumps(hide)))  # noqa: S301 - our own
    assert not NOTHING_HIDDEN
    assert NOTHING_HIDDEN("hunter2") == "hunter2"


def failing(error: Exception, cause: Exception | None = None) -> Exception:
    with pytest.raises(Exception) as raised, hiding_values(hiding("s3cret/zoo", "${KEY}/a.npz")):  # noqa: PT011 - any
        raise error from cause
    return raised.value


def test_error__stays_itself_without_the_value_and_so_do_its_causes() -> None:
    path = f"{ROOT}/s3cret/zoo/a.npz"
    cause = OSError(errno.ENOENT, "No such file or directory", path)
    cause.add_note(f"while {path} was read")
    error = failing(DataError("missing_source", f"{path}: gone"), cause)

    assert isinstance(error, DataError)
    assert (error.reason, str(error)) == ("missing_source", f"{ROOT}/${{KEY}}/a.npz: gone")
    told = "".join(traceback.format_exception(error))
    assert "s3cret" not in told.replace('s3cret/zoo", "', "")
    assert f"[Errno 2] No such file or directory: '{ROOT}/${{KEY}}/a.npz'" in told


def test_error_that_makes_its_text_itself__becomes_another() -> None:
    class Stubborn(Exception):
        def __str__(self) -> str:
            return f"cannot open {ROOT}/s3cret/zoo/a.npz"

    error = failing(Stubborn())

    assert isinstance(error, RuntimeError)
    assert str(error) == f"Stubborn: cannot open {ROOT}/${{KEY}}/a.npz"


def test_logs__hide_values_in_messages_arguments_and_tracebacks(caplog: pytest.LogCaptureFixture) -> None:
    logger, path = logging.getLogger("lfm_tasks.of_a_test"), f"{ROOT}/s3cret/zoo/a.npz"
    factory = logging.getLogRecordFactory()

    with hiding_logs(hiding("s3cret/zoo", "${KEY}/a.npz")):
        logger.warning("cannot open %s", path)
        try:
            raise ValueError(path)
        except ValueError:
            logger.exception("%s failed", "job")

    assert "s3cret" not in caplog.text
    assert f"cannot open {ROOT}/${{KEY}}/a.npz" in caplog.text
    assert f"ValueError: {ROOT}/${{KEY}}/a.npz" in caplog.text
    assert logging.getLogRecordFactory() is factory


def test_logs__are_left_alone_without_values() -> None:
    factory: Any = logging.getLogRecordFactory()
    with hiding_logs(NOTHING_HIDDEN):
        assert logging.getLogRecordFactory() is factory
