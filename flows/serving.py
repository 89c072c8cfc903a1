"""Audits on a schedule in this process: what ``lfm-atlas serve`` does."""

import asyncio
import signal
import sys
from typing import Any

from prefect.runner import Runner
from prefect.types.entrypoint import EntrypointType

from flows.audit import audit


def run_on_schedule(name: str, cron: str, parameters: dict[str, Any]) -> None:
    """Run the audit at the times of ``cron`` (UTC), one at a time, until SIGINT or SIGTERM."""
    stopped_by: list[int] = []

    def stop(number: int, frame: object = None) -> None:
        # The runner's own handler waits for the loop that it interrupts, and so for ever.
        stopped_by.append(number)
        signal.raise_signal(signal.SIGINT)

    async def serve() -> None:
        runner = Runner(name=name, limit=1, pause_on_shutdown=True)
        runner.handle_sigterm = stop  # type: ignore[method-assign]
        await runner.aadd_flow(
            audit,  # type: ignore[arg-type]
            name=name,
            cron=cron,
            parameters={"parameters": parameters},
            tags=["lfm-atlas", "audit"],
            concurrency_limit=1,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        await runner.start()

    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        if stopped_by:
            sys.exit(128 + stopped_by[0])
        raise
