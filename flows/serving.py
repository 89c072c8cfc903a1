"""Audits on a schedule in this process: what ``lfm-atlas serve`` does."""

import asyncio
import sys
from typing import Any

from prefect.runner import Runner
from prefect.types.entrypoint import EntrypointType

from flows.audit import audit


def run_on_schedule(name: str, cron: str, parameters: dict[str, Any]) -> None:
    """Run the audit at the times of ``cron`` (UTC), one at a time, until SIGINT or SIGTERM."""
    stopped_by: list[int] = []

    async def serve() -> None:
        loop, serving = asyncio.get_running_loop(), asyncio.current_task()

        def stop(number: int, frame: object = None) -> None:
            # The runner's own handler waits for the loop that it interrupts, and so for ever. A SIGINT raised here
            # would be lost where a shell has it ignored, as for all that it starts in the background.
            stopped_by.append(number)
            if serving is not None:
                loop.call_soon_threadsafe(serving.cancel)

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
    except asyncio.CancelledError:
        if stopped_by:
            sys.exit(128 + stopped_by[0])
        raise
