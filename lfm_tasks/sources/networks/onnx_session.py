"""Runs ONNX models: the one door to onnxruntime, on one CPU thread, the same bits every time on one machine type."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped

from lfm_tasks.reasons import ReasonError
from lfm_tasks.sources.networks.onnx_files import brief


def runtime_version() -> str:
    """Return the version of onnxruntime."""
    import onnxruntime

    return str(onnxruntime.__version__)


@dataclass(frozen=True)
class Session:
    """A model that is ready to run; ``name`` is how messages call it."""

    name: str
    session: Any

    def run(self, outputs: Sequence[str], feed: Mapping[str, np.ndarray]) -> Sequence[Shaped[np.ndarray, "batch ..."]]:
        """Return ``outputs``; ReasonError ``unsupported_model`` if onnxruntime stops."""
        try:
            values: Sequence[Shaped[np.ndarray, "batch ..."]] = self.session.run(list(outputs), dict(feed))
        except Exception as error:  # onnxruntime's errors have no common class
            raise _stopped(self.name, "run", error) from error
        return values


def open_session(content: bytes, name: str) -> Session:
    """Return the model in ``content``, ready to run; ReasonError ``unsupported_model`` if onnxruntime refuses it."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    # Fused nodes would swallow the tensors; more threads would change the order of sums.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # what goes wrong is raised
    try:
        return Session(name, onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]))
    except Exception as error:  # onnxruntime's errors have no common class
        raise _stopped(name, "open", error) from error


def _stopped(name: str, what: str, error: Exception) -> ReasonError:
    found = f"onnxruntime could not {what} it ({brief(error)})"
    return ReasonError("unsupported_model", f"{name}: {found}: check that it runs, or export it again")
