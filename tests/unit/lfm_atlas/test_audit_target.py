"""Who says what is audited: the process that runs the audits, not a flow run."""

from pathlib import Path

import pytest
from prefect.utilities.callables import parameter_schema

from lfm_atlas.audit import AuditParameters, AuditTarget, audit_flow

TARGET = AuditTarget("/zoo/data_catalog.yaml", trust_code=False, scheduler="tcp://10.0.0.5:8786")


def test_environment__says_what_it_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for target in (TARGET, AuditTarget("/zoo/data_catalog.yaml", trust_code=True)):
        for name, value in target.to_environment().items():
            monkeypatch.setenv(name, value)

        assert AuditTarget.from_environment() == target


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, r"got no LFM_ATLAS_CATALOG in the environment, expected the path .* lfm-atlas serve, .* lfm-atlas deploy"),
        (
            {"LFM_ATLAS_CATALOG": "/zoo/data_catalog.yaml", "LFM_ATLAS_TRUST_CODE": "perhaps"},
            "got LFM_ATLAS_TRUST_CODE='perhaps', expected true or false",
        ),
    ],
)
def test_environment_without_a_target__is_refused(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LFM_ATLAS_CATALOG", "LFM_ATLAS_TRUST_CODE", "LFM_ATLAS_SCHEDULER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ValueError, match=message):
        AuditTarget.from_environment()


@pytest.mark.parametrize(
    "parameters",
    [
        AuditParameters(),
        AuditParameters(promote=True, trust_code=False, catalog="", scheduler=""),
        AuditParameters(catalog="/zoo/data_catalog.yaml", scheduler="tcp://10.0.0.5:8786"),
    ],
)
def test_parameters_that_say_the_same_or_nothing__are_taken(parameters: AuditParameters) -> None:
    TARGET.check(parameters)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"trust_code": True}, "got trust_code True, expected False"),
        ({"catalog": "data_catalog.yaml"}, "got catalog 'data_catalog.yaml', expected '/zoo/data_catalog.yaml'"),
        ({"scheduler": "tcp://evil:1"}, "got scheduler 'tcp://evil:1', expected 'tcp://10.0.0.5:8786'"),
    ],
)
def test_parameters_that_say_otherwise__fail_with_the_reason_before_anything_is_read(
    changed: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in TARGET.to_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("lfm_atlas.audit.read_catalog_for_flow", lambda *_, **__: pytest.fail("it read the catalog"))

    state = audit_flow().fn(**changed)  # type: ignore[attr-defined]

    assert (state.name, state.is_failed()) == ("Refused", True)
    assert message in state.message


def test_parameters_of_the_flow__are_flat_and_described() -> None:
    fields = parameter_schema(audit_flow().fn).properties  # type: ignore[attr-defined]

    assert list(fields) == ["catalog", "promote", "trust_code", "scheduler"]
    assert all(field["description"] for field in fields.values())
