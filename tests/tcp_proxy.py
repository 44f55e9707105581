"""TCP proxy that can simulate network failures."""

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import sleep

POLL_SECONDS = 0.02


@dataclass(eq=False)
class Connection:
    """A client's connection and the proxy's connection to the server."""

    client: socket.socket
    server: socket.socket
    is_forgotten: bool = False
    """True while nothing is forwarded and neither side is notified, as by a router that has lost its state."""

    def close(self) -> None:
        """Close both sides."""
        for side in (self.client, self.server):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()


class Proxy:
    """Proxy that forwards connections at `port` to a Unix socket."""

    def __init__(self, upstream: Path) -> None:
        self.upstream = upstream
        self.blocks_requests = False
        self.blocks_replies = False
        self.connections: list[Connection] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def block(self, *, requests: bool = True, replies: bool = True) -> None:
        """Stop forwarding without closing anything; new connections are accepted and hang."""
        self.blocks_requests, self.blocks_replies = requests, replies

    def resume(self) -> None:
        """Forward again, including the bytes that were held back."""
        self.blocks_requests = self.blocks_replies = False

    def close_connections(self) -> None:
        """Close all connections."""
        connections, self.connections = self.connections, []
        for connection in connections:
            connection.close()

    def silence_connections(self) -> None:
        """Stop forwarding on the current connections for ever, without closing them."""
        for connection in self.connections:
            connection.is_forgotten = True

    def close(self) -> None:
        """Stop the proxy."""
        self.listener.close()
        self.close_connections()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(str(self.upstream))
            except OSError:
                client.close()
                server.close()
                continue
            connection = Connection(client, server)
            self.connections.append(connection)
            for is_request in (True, False):
                threading.Thread(target=self._forward, args=(connection, is_request), daemon=True).start()

    def _forward(self, connection: Connection, is_request: bool) -> None:
        source, target = connection.client, connection.server
        if not is_request:
            source, target = target, source
        with suppress(OSError):
            while data := source.recv(65536):
                while connection.is_forgotten or (self.blocks_requests if is_request else self.blocks_replies):
                    if source.fileno() < 0:
                        return
                    sleep(POLL_SECONDS)
                target.sendall(data)
        # A cut network does not forward the end of a connection either.
        while connection.is_forgotten or self.blocks_requests or self.blocks_replies:
            if source.fileno() < 0:
                return
            sleep(POLL_SECONDS)
        connection.close()
