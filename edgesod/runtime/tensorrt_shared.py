"""One engine on one GPU, for as long as any session runs it."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from edgesod.errors import DeviceError
from edgesod.runtime.cuda import Cuda, Resource
from edgesod.runtime.tensorrt_engine import Engine


class User(Protocol):
    """A session, as far as its end is concerned."""

    def let_go(self) -> list[Resource]:
        """Drop the execution context and return what it used; never fails, and nothing is left to do the second time."""


class SharedEngine:
    """The owner of a GPU and of the engine on it.

    Whoever joins has to leave; what the last one leaves is closed: engine first, then whatever else is on the GPU. When the
    GPU is closed by somebody else, or the program ends, users let go in the order that keeps TensorRT from using freed memory.

    Args:
        cuda: An open GPU; it belongs to this from now on.

    Attributes:
        cuda: The GPU.
        engine: The engine, set once it is open; ``None`` after closing.
    """

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self.engine: Engine | None = None
        self._users: list[User] = []
        cuda.before_close(self._close)

    def join(self, user: User) -> None:
        """Take a user in."""
        with self.cuda.lock:
            self._users.append(user)

    def leave(self, user: User) -> None:
        """See a user off; never fails, for a GPU that is lost is let go of all the same."""
        with self.cuda.lock:
            if self._users == [user]:
                self.cuda.close()
                self._users.clear()
            elif user in self._users:  # until it has let go, so that the engine waits for it
                for _ in range(2):  # a GPU that is busy can be bound a moment later
                    with suppress(DeviceError), self.cuda.bound():
                        self.cuda.discard(*user.let_go())
                user.let_go()  # one that is lost cannot
                self._users.remove(user)

    def _close(self) -> None:
        """Have everybody let go, then the engine; the GPU frees the rest after."""
        for user in list(self._users):
            user.let_go()
        if self.engine is not None:
            self.engine.close()
            self.engine = None
