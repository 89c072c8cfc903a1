import threading

import dask

from lfm_tasks.workers.dask_config import DASK_SETTINGS, dask_settings


def test_settings__hold_in_the_block_and_are_put_back() -> None:
    name = "distributed.comm.timeouts.connect"
    with dask.config.set({name: "7s"}):
        with dask_settings():
            assert dask.config.get(name) == DASK_SETTINGS[name]
        assert dask.config.get(name) == "7s"


def test_settings__are_never_missing_for_another_thread() -> None:
    import distributed  # noqa: F401 - its defaults

    failures: list[Exception] = []
    is_over = threading.Event()

    def read() -> None:
        while not is_over.is_set():
            try:
                dask.config.get("distributed.worker.memory.target")
                dask.config.get("distributed.comm.timeouts.connect")
            except Exception as error:
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(200):
        with dask_settings():
            pass
    is_over.set()
    reader.join()

    assert failures == []
