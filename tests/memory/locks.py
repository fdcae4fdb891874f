"""What a driver keeps of pinned memory, for tests of what asks it."""

from __future__ import annotations

from musubi.memory.arena import PAGE


class Locks:
    """Pin whole pages, none of them twice, up to so many bytes."""

    def __init__(self, room: int = 1 << 40) -> None:
        self.pinned: dict[int, int] = {}
        self.room, self.calls = room, 0

    def register(self, address: int, size: int) -> bool:
        assert address % PAGE == 0
        assert size % PAGE == 0
        assert all(address + size <= other or other + length <= address for other, length in self.pinned.items())
        self.calls += 1
        if sum(self.pinned.values()) + size > self.room:
            return False
        self.pinned[address] = size
        return True

    def unregister(self, address: int) -> None:
        del self.pinned[address]
