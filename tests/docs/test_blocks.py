"""Every block of code on a page is run or read by a test, or is an exception with a reason."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lfm_atlas.cli.main import app
from tests.docs.test_site import DOCS, PAGES, ROOT

TOKENS = re.compile(r"^```(sh|python|yaml|toml)\n(.*?)^```", re.DOTALL | re.MULTILINE)
# The test that runs the blocks of a page, or reads them as the program does; paths below tests/.
TESTED = {
    "README.md": {"python": "docs/test_site.py"},
    "docs/atlas.md": {"python": "docs/test_atlas_pages.py", "sh": "docs/test_atlas_pages.py"},
    "docs/audit.md": {"yaml": "docs/test_audit_page.py", "python": "docs/test_audit_page.py"},
    "docs/catalog.md": {"yaml": "docs/test_catalog_page.py"},
    "docs/clusters.md": {"yaml": "unit/catalog/test_cluster.py"},
    "docs/differences.md": {"yaml": "docs/test_differences_page.py", "python": "docs/test_differences_page.py"},
    "docs/hugging_face.md": {"yaml": "docs/test_hugging_face_page.py"},
    "docs/index.md": {"python": "docs/test_site.py"},
    "docs/library.md": {"python": "docs/test_library_page.py"},
    "docs/lineage.md": {"python": "docs/test_lineage_page.py", "sh": "docs/test_blocks.py"},
    "docs/method.md": {"python": "docs/test_method_page.py"},
    "docs/parity.md": {"sh": "docs/test_blocks.py"},
    "docs/readers.md": {"yaml": "docs/test_readers_page.py", "python": "docs/test_readers_page.py"},
    "docs/recording.md": {"yaml": "docs/test_recording_page.py"},
    "docs/spectral.md": {"python": "docs/test_blocks.py"},
    "docs/start.md": dict.fromkeys(("python", "yaml", "sh"), "docs/test_atlas_pages.py"),
    "docs/transfer.md": {"python": "docs/test_transfer_page.py", "sh": "docs/test_transfer_page.py"},
}
SET_UP = "installs packages; CI runs the two set-up commands of README, and the locked install"
PLUG_IN = "tests/packaging installs tests/packaging/example_plugin, which has this entry point"
# Blocks that no test of a page runs, and why.
EXCEPTIONS = {
    ("CONTRIBUTING.md", "sh"): SET_UP,
    ("README.md", "sh"): SET_UP,
    ("README.md", "yaml"): "a fragment for files of the reader; docs/start.md has one of this kind that runs",
    ("deploy/README.md", "sh"): SET_UP,
    ("docs/api.md", "python"): "imports only; the examples of these names are tests/docs/test_examples.py",
    ("docs/audit.md", "sh"): "servers and schedules: nightly_audit.ipynb and tests/integration run the commands",
    ("docs/clusters.md", "python"): "opens a bucket of the reader; tests/robustness/clusters does so on loopback",
    ("docs/dashboards.md", "sh"): "serves pages until it is stopped; tests/integration/test_prefect_server.py",
    ("docs/evidence.md", "sh"): "a quarter of an hour; tests/integration/test_reproduce.py runs parts of it",
    ("docs/hugging_face.md", "sh"): "checkpoints of the reader; hugging_face_zoo.ipynb runs the commands",
    ("docs/index.md", "sh"): SET_UP,
    ("docs/measures.md", "toml"): PLUG_IN,
    ("docs/page.md", "yaml"): "a fragment with files of the reader; docs/catalog.md has all of its keys",
    ("docs/parity.md", "yaml"): "a fragment with models of the reader; docs/catalog.md has all of its keys",
    ("docs/readers.md", "toml"): PLUG_IN,
    ("docs/recording.md", "python"): "exports with torch, which CI does not install",
    (
        "docs/recording.md",
        "sh",
    ): "runs code of the reader; tests/integration/test_torch_zoo.py does with the extra torch",
    ("docs/reliability.md", "sh"): "starts a test suite",
    ("docs/security.md", "sh"): "starts a test suite, and servers that wait for a user",
    ("docs/upgrade.md", "sh"): "stores of the reader; tests/unit/upgrades runs the commands",
    ("docs/which_score.md", "sh"): "hours; tests/integration/test_reproduce_groundings.py runs it on toys",
    ("docs/which_score.md", "yaml"): "a fragment; tests/integration/test_reproduce_groundings.py writes such catalogs",
}
ALL = sorted([*PAGES, ROOT / "deploy/README.md"])


def blocks(name: str, language: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return [code for kind, code in TOKENS.findall(text) if kind == language]


def test_every_block__is_tested_or_an_exception() -> None:
    there = {
        (str(page.relative_to(ROOT)), kind)
        for page in ALL
        for kind, _ in TOKENS.findall(page.read_text(encoding="utf-8"))
    }
    tested = [(page, kind) for page, tests in TESTED.items() for kind in tests]

    assert Counter([*tested, *EXCEPTIONS]) == Counter(there)
    assert [path for tests in TESTED.values() for path in tests.values() if not (ROOT / "tests" / path).exists()] == []
    for page, tests in TESTED.items():
        for path in tests.values():
            assert Path(page).name in (ROOT / "tests" / path).read_text(encoding="utf-8"), (page, path)


@pytest.mark.parametrize(("page", "code"), [("docs/lineage.md", 0), ("docs/parity.md", 3)])
def test_commands_of_the_page__run(
    page: str, code: int, zoo_folder_built: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(zoo_folder_built)
    [commands] = blocks(page, "sh")

    for command in commands.splitlines():
        words = command.partition("#")[0].split()
        assert words[0] == "lfm-atlas"
        assert (app(words[1:], result_action="return_value") or 0) == code
    assert "mlp_s0_permuted" in capsys.readouterr().out


def test_spectral_page__has_python_that_runs() -> None:
    [code] = blocks("docs/spectral.md", "python")
    generator = np.random.default_rng(0)
    x = np.tanh(generator.normal(size=(420, 5)) @ generator.normal(size=(5, 12)))
    y = (x @ np.linalg.qr(generator.normal(size=(12, 12)))[0])[(order := generator.permutation(400))]
    names = {"x": x[:400], "y": y, "known_x": order[:20], "known_y": np.arange(20), "new_x": x[400:]}

    exec(compile(code, "spectral.md", "exec"), names)  # noqa: S102 - our own page

    assert names["moved"].shape == (20, 12)
    assert DOCS.joinpath("spectral.md").exists()
