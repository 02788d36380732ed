"""One channel of a websocket: a load or a prediction on its way."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from lmstrix.testing.lmstudio.script import OddPacket, Step
from lmstrix.testing.lmstudio.state import ServerState
from lmstrix.testing.lmstudio.wire import Json, WireError, channel_error, channel_message

__all__ = ["Channel"]


class Channel:
    """The server's side of a channel.

    `post` queues a frame, `drop` asks for the socket to be torn down behind it. `scope` is what
    the client's `cancel` cancels.
    """

    def __init__(
        self,
        state: ServerState,
        number: int,
        post: Callable[[Json], None],
        drop: Callable[[], None],
    ) -> None:
        self.state = state
        self._drop = drop
        self.scope = anyio.CancelScope()
        self._number = number
        self._post = post
        self._mute = False

    def send(self, message: Json) -> None:
        """Send a message, unless the channel is over or silent."""
        if not self._mute:
            self._post(channel_message(self._number, message))

    def send_odd(self) -> None:
        """Send what the script wants to be sent before an answer."""
        if OddPacket.TOP_LEVEL in self.state.script.odd_packets:
            self._post({"type": "somethingNew", "content": 1})
        if OddPacket.IN_CHANNEL in self.state.script.odd_packets:
            self.send({"type": "somethingNew", "content": 1})

    async def step(self, step: Step) -> None:
        """Go on, or say nothing any more until the client cancels or goes away."""
        if self.state.is_silent(step):
            self._mute = True
            await anyio.sleep_forever()

    async def drop(self) -> None:
        """Tear the whole socket down, which ends this channel too."""
        self._drop()
        await anyio.sleep_forever()

    def cancel(self) -> None:
        """The client wants no more."""
        self.state.counters.cancels += 1
        if not self.state.script.ignores_cancel:
            self.scope.cancel()

    def close(self) -> None:
        """The channel is over."""
        self._end({"type": "channelClose", "channelId": self._number})

    def fail(self, error: WireError) -> None:
        """The channel is over, with an error."""
        self._end(channel_error(self._number, error))

    def _end(self, frame: Json) -> None:
        if not self._mute:
            self._post(frame)
        self._mute = True
