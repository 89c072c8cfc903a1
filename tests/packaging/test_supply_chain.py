"""What the package is built on: locked by hashes, licenses listed, weaknesses looked up; and no code from data."""

import ast
import json
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
# What runs what it reads. torch.load and numpy's readers are safe by an argument, which has to stand there.
FORBIDDEN = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads", "dill.load",
    "joblib.load", "marshal.load", "marshal.loads", "shelve.open", "eval", "exec", "yaml.load", "yaml.unsafe_load",
    "torch.jit.load", "torch.hub.load", "os.system", "os.popen", "pandas.read_pickle", "pd.read_pickle",
}  # fmt: skip


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dangers(source: str) -> list[str]:
    """Return the calls and imports of a module by which data could run."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in {"pickle", "cloudpickle", "dill", "marshal", "shelve"}:
            found.append(f"from {node.module}")
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in FORBIDDEN or arguments.get("allow_pickle", "False") != "False":
            found.append(name)
        if name == "torch.load" and arguments.get("weights_only") != "True":
            found.append("torch.load without weights_only")
        if arguments.get("shell", "False") != "False":
            found.append(f"{name} by a shell")
        if name == "YAML" and not {"typ='rt'", "typ='safe'"} & {f"typ={arguments.get('typ', repr('rt'))}"}:
            found.append("YAML of objects")
    return found


@pytest.mark.parametrize("folder", ["flows", "lfm_tasks"])
def test_no_module__runs_what_it_reads(folder: str) -> None:
    found = {str(path): dangers(path.read_text()) for path in (ROOT / folder).rglob("*.py")}
    assert len(found) > 10
    assert {path: calls for path, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    "planted",
    [
        "import pickle\npickle.load(file)",
        "from pickle import loads",
        "np.load(path, allow_pickle=True)",
        "np.lib.format.read_array(file, allow_pickle=chosen)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text)",
        "YAML(typ='unsafe')",
        "eval(header)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_danger_that_is_planted__is_seen(planted: str) -> None:
    assert dangers(planted)


def test_lock__has_a_hash_for_everything() -> None:
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    assert len(entries) > 100
    assert [entry.split()[0] for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)] == []
    assert [entry.split()[0] for entry in entries if "==" not in entry.splitlines()[0]] == []


def test_licenses__are_those_of_the_lock() -> None:
    listed = dict(re.findall(r"(?m)^\| ([^| ]+) \| ([^|]+?) \| [^|]+ \|$", (ROOT / "deploy/licenses.md").read_text()))
    locked: dict[str, list[str]] = {}
    for name, version in re.findall(r"(?m)^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", LOCK):
        locked.setdefault(name, []).append(version)
    listed.pop("package")
    assert listed == {name: ", ".join(versions) for name, versions in locked.items()}, "run deploy/licenses"


def test_audit__fails_for_weaknesses_and_when_it_looked_up_too_little(capsys: pytest.CaptureFixture[str]) -> None:
    judged = runpy.run_path(str(ROOT / "deploy/audit-dependencies"))["judged"]
    names = sorted(set(re.findall(r"(?m)^([A-Za-z0-9._-]+)(?:\[.*\])?==", LOCK)))
    clean = [{"name": name, "version": "1", "vulns": []} for name in names]
    weak = [{**clean[0], "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}, *clean[1:]]
    skipped = [{"name": name, "skip_reason": "not found on PyPI"} for name in names]
    for entries, code, told in [
        ({"dependencies": clean}, 0, f"looked up {len(names)} packages, found 0"),
        ({"dependencies": weak}, 1, f"{names[0]} 1: CVE-1, mended in 2"),
        ({"dependencies": clean[1:] + skipped[:1]}, 1, f"looked up {len(names) - 1} of {len(names)} packages, needs"),
        ({"dependencies": skipped}, 3, f"not run: pip-audit looked up none of {len(names)} packages \\(not found on"),
        ({"dependencies": []}, 3, "it was given no packages"),
        ([], 1, "got no report of pip-audit"),
    ]:
        assert judged(json.dumps(entries), len(names)) == code
        assert re.search(told, capsys.readouterr().err)
