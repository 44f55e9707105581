"""What a program says, kept within bounds however much it is."""

MAX_LINE_BYTES = 8 * 1024
"""Bytes of a line that are kept."""

MAX_STDERR_BYTES = 64 * 1024
"""Bytes of its stderr that are kept, the last ones."""


class LineBuffer:
    """Lines of a stream that arrives in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes, most: int) -> list[bytes]:
        """The last `most` lines that are complete now; those before them, if there are any, are not looked at."""
        first, *others = data.rsplit(b"\n", most + 1)
        if not others:
            self._rest = (self._rest + first)[:MAX_LINE_BYTES]
            return []
        if len(others) <= most:
            others.insert(0, self._rest + first)
        self._rest = others.pop()[:MAX_LINE_BYTES]
        return [line[:MAX_LINE_BYTES] for line in others]

    def get_last_line(self) -> list[bytes]:
        """The last line, where nothing ended it."""
        return [self._rest] if self._rest else []


class TailBuffer:
    """The end of a stream."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept = bytearray()
        self.is_cut = False
        """Whether there was more before it."""

    def feed(self, data: bytes) -> None:
        """Go on."""
        self._kept += data
        if len(self._kept) > 2 * self._size:
            self._drop_start()

    def get_content(self) -> bytes:
        """What is kept."""
        if len(self._kept) > self._size:
            self._drop_start()
        return bytes(self._kept)

    def _drop_start(self) -> None:
        del self._kept[: -self._size]
        self.is_cut = True
