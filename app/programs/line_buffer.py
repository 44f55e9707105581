"""Buffers of limited size for the output of a program."""

MAX_LINE_BYTES = 8 * 1024
"""Bytes of a line of stdout that are kept."""

MAX_STDERR_BYTES = 64 * 1024
"""Bytes of stderr that are kept, the last ones."""


class LineBuffer:
    """Buffer that splits a stream into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes, most: int) -> list[bytes]:
        """Add data; return the last `most` lines that it completes and drop earlier ones."""
        first, *others = data.rsplit(b"\n", most + 1)
        if not others:
            self._rest = (self._rest + first)[:MAX_LINE_BYTES]
            return []
        if len(others) <= most:
            others.insert(0, self._rest + first)
        self._rest = others.pop()[:MAX_LINE_BYTES]
        return [line[:MAX_LINE_BYTES] for line in others]

    def get_last_line(self) -> list[bytes]:
        """Return the last line, as a list of one element, if it has no newline; otherwise an empty list."""
        return [self._rest] if self._rest else []


class TailBuffer:
    """Buffer that keeps the end of a stream."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept = bytearray()
        self.is_cut = False
        """True if earlier data was dropped."""

    def feed(self, data: bytes) -> None:
        """Add data."""
        self._kept += data
        if len(self._kept) > 2 * self._size:
            self._drop_start()

    def get_content(self) -> bytes:
        """Return the last bytes of the stream, up to the size of the buffer."""
        if len(self._kept) > self._size:
            self._drop_start()
        return bytes(self._kept)

    def _drop_start(self) -> None:
        del self._kept[: -self._size]
        self.is_cut = True
