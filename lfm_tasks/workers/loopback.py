"""The loopback of this machine, on which the processes of a run talk to each other."""

import socket

# A connection takes microseconds, unless a firewall drops it (seconds).
CONNECT_SECONDS = 10.0


def check_loopback() -> None:
    """Raise RuntimeError unless this machine reaches its own 127.0.0.1: without it servers wait for ever."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), CONNECT_SECONDS).close()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        advice = "Bring it up (ip link set lo up), open the firewall to it, or run with --no-dask, which needs none"
        raise RuntimeError(f"got no connection of this machine to its own 127.0.0.1 ({reason}). {advice}.") from error
