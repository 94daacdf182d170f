"""A client that only counts, cheap enough not to be what is measured: sockets and select, no event loop."""

import select
import socket
import time
from collections import deque

import numpy as np
import orjson


class Load:
    """Connections to one server. Requests are written beforehand; answers are read to their end and looked at for their status.

    key: an API key that every request sends.
    """

    def __init__(self, host: str, port: int, key: str = ""):
        self.host, self.port = host, port
        self.head = f"host: {host}\r\n" + (f"x-api-key: {key}\r\n" if key else "")

    def get(self, path: str) -> bytes:
        """Write a GET."""
        return f"GET {path} HTTP/1.1\r\n{self.head}\r\n".encode()

    def post(self, path: str, body: object) -> bytes:
        """Write a POST of JSON."""
        sent = orjson.dumps(body)
        head = f"POST {path} HTTP/1.1\r\n{self.head}content-type: application/json\r\ncontent-length: {len(sent)}\r\n\r\n"
        return head.encode() + sent

    def flood(self, requests: list[bytes], callers: int) -> float:
        """Send all of them from callers who each wait for their answer; return requests a second."""
        began = time.perf_counter()
        self._send(requests, [0.0] * len(requests), callers)
        return len(requests) / (time.perf_counter() - began)

    def open_loop(self, requests: list[bytes], rate: float, seconds: float, connections: int = 64) -> np.ndarray:
        """Send one every 1 / rate seconds, answered or not; return how long after its time each was answered, in ms."""
        count = int(rate * seconds)
        some = (requests * (1 + count // len(requests)))[:count]
        return self._send(some, (np.arange(count) / rate).tolist(), connections)

    def _send(self, requests: list[bytes], due: list[float], connections: int) -> np.ndarray:
        free = deque(_Connection(self.host, self.port) for _ in range(connections))
        every, busy = list(free), dict[int, _Connection]()
        took, sent, answered, began = np.zeros(len(requests)), 0, 0, time.perf_counter()
        while answered < len(requests):
            now = time.perf_counter() - began
            while sent < len(requests) and free and due[sent] <= now:
                connection = free.popleft()
                connection.ask(requests[sent], sent)
                busy[connection.socket.fileno()] = connection
                sent += 1
            wait = max(0.0, due[sent] - now) if sent < len(requests) and free else 5.0
            ready, _, _ = select.select(list(busy), [], [], wait)
            if not ready and wait == 5.0:
                raise RuntimeError(f"no answer in 5 s to {len(busy)} requests")
            for number in ready:
                connection = busy[number]
                if connection.answered():
                    took[connection.number] = time.perf_counter() - began - due[connection.number]
                    free.append(busy.pop(number))
                    answered += 1
        for connection in every:
            connection.socket.close()
        return took * 1000


class _Connection:
    """One socket: asks one thing at a time."""

    def __init__(self, host: str, port: int):
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number, self.length, self.came = 0, 0, b""

    def ask(self, request: bytes, number: int) -> None:
        self.number, self.length, self.came, self.request = number, 0, b"", request
        self.socket.sendall(request)

    def answered(self) -> bool:
        """Take what has come; say whether the answer is whole."""
        came = self.socket.recv(1 << 18)
        if not came:
            raise RuntimeError("the server closed a connection")
        self.came += came
        if not self.length and (end := self.came.find(b"\r\n\r\n")) >= 0:
            head = self.came[:end].lower()
            if b" 200 " not in head[:20]:
                raise RuntimeError(f"the server answered {self.came[:300]!r} to {self.request[:200]!r}")
            self.length = end + 4 + int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return bool(self.length) and len(self.came) >= self.length
