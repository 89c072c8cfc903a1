"""Locales, terminals and pipes of other people: text is UTF-8 in files, and what cannot be shown ends nothing."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.robustness.environments.commands import lfm_atlas
from tests.robustness.environments.conftest import files

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
STRICT = ASCII | {"PYTHONIOENCODING": "ascii:strict"}


@pytest.fixture(scope="session")
def latin_1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Give the variables of a locale in ISO 8859-1."""
    if shutil.which("localedef") is None or not Path("/usr/share/i18n/locales/en_US").exists():
        pytest.skip("not run: needs localedef and the sources of locales")
    folder = tmp_path_factory.mktemp("locales")
    command = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(folder / "en_US.ISO-8859-1")]
    subprocess.run(command, check=True, capture_output=True)
    return {"LOCPATH": str(folder), "LC_ALL": "en_US.ISO-8859-1", "PYTHONUTF8": "0"}


def with_meta(zoo: Path) -> Path:
    """Have the catalog name what Latin-1 and ASCII lack."""
    path = zoo / "data_catalog.yaml"
    text = path.read_text(encoding="utf-8").replace(
        "models:\n  model0:\n", "models:\n  model0:\n    meta: {note: modèle 語}\n"
    )
    assert "modèle" in text
    path.write_text(text, encoding="utf-8")
    return zoo


@pytest.fixture(scope="session")
def made_under_utf_8(
    tmp_path_factory: pytest.TempPathFactory, write_tiny_zoo: Callable[[Path], Path]
) -> dict[str, bytes]:
    """Give the atlas of the zoo with that meta."""
    zoo = with_meta(write_tiny_zoo(tmp_path_factory.mktemp("utf-8") / "zoo"))
    lfm_atlas("run", "--no-prefect", folder=zoo, variables={"PYTHONUTF8": "1"}).check(0)
    return files(zoo / "atlas")


@pytest.mark.environments
@pytest.mark.parametrize("locale", ["latin-1", "ascii", "strict"])
def test_atlas_that_was_made_under_another_locale__is_the_same_bytes_and_read_everywhere(
    locale: str, zoo: Path, made_under_utf_8: dict[str, bytes], request: pytest.FixtureRequest
) -> None:
    there = {"ascii": ASCII, "strict": STRICT}.get(locale) or request.getfixturevalue("latin_1")
    lfm_atlas("run", "--no-prefect", folder=with_meta(zoo), variables=there).check(0, "2 spaces, 0 failed")

    assert files(zoo / "atlas") == made_under_utf_8
    lfm_atlas("show", "atlas", "summary", folder=zoo, variables={"PYTHONUTF8": "1"}).check(0, "modèle 語")
    lfm_atlas("show", "atlas", "summary", folder=zoo, variables=there).check(0, r"\u8a9e")


@pytest.mark.environments
def test_pipe_whose_reader_has_gone__ends_what_only_prints_silently_and_nothing_else(zoo: Path) -> None:
    before = ["bash", "-c", '"$@" | true; exit ${PIPESTATUS[0]}', "bash"]
    assert lfm_atlas("catalog", "show", folder=zoo, before=before).check(141).err == ""
    lfm_atlas("run", "--no-prefect", "--no-dask", folder=zoo, before=before).check(0)
    both = ["bash", "-c", '"$@" 2>&1 | true; exit ${PIPESTATUS[0]}', "bash"]
    lfm_atlas("run", "--no-prefect", "--no-dask", folder=zoo, before=both).check(0)
    assert (zoo / "atlas" / "report.html").exists()


@pytest.mark.environments
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_closed_streams__leave_the_exit_code_of_the_work(closed: str, zoo: Path) -> None:
    before = ["sh", "-c", f'exec "$@" {closed}', "sh"]
    lfm_atlas("run", "--no-prefect", folder=zoo, before=before).check(0)
    lfm_atlas("show", "atlas", "summary", folder=zoo, before=before).check(0)
    lfm_atlas("run", "--catalog", "nothing.yaml", folder=zoo, before=before).check(2)


@pytest.mark.environments
def test_full_disk_behind_stdout__is_an_error(zoo: Path) -> None:
    before = ["sh", "-c", 'exec "$@" >/dev/full', "sh"]
    lfm_atlas("plan", folder=zoo, before=before).check(1, "got no space left on the disk", most_lines=1)
