"""Audits on a schedule: what a signal does before the event loop runs."""

import asyncio
import os
import signal

import pytest

from lfm_atlas import deployment


def test_handler__is_in_force_inside_the_block_only() -> None:
    before = signal.getsignal(signal.SIGTERM)
    received = []
    with deployment._signals_handled_by(lambda number, _: received.append(number)):
        os.kill(os.getpid(), signal.SIGTERM)
    assert received == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before


def test_ignored_interrupt__stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deployment._signals_handled_by(lambda number, _: pytest.fail(f"signal {number}")):
            os.kill(os.getpid(), signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_the_loop_is_made__ends_the_process_in_order(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a shell starts in the background has SIGINT ignored, tests too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    make = asyncio.new_event_loop

    def interrupted() -> asyncio.AbstractEventLoop:
        os.kill(os.getpid(), number)
        return make()

    monkeypatch.setattr("asyncio.events.new_event_loop", interrupted)
    monkeypatch.setattr(deployment, "Runner", lambda **_: pytest.fail("starts to serve after a signal"))
    try:
        with pytest.raises(SystemExit if number == signal.SIGTERM else KeyboardInterrupt) as ended:
            deployment.run_on_schedule("name", "0 0 1 1 *", {})
    finally:
        signal.signal(signal.SIGINT, before)
    assert number == signal.SIGINT or ended.value.args == (143,)
