"""Runs live sources through their models, and puts what is newest on the board."""

from __future__ import annotations

from typing import Final

from edgemed.base.quantity import SECOND
from edgemed.serve.live.board import Channel
from edgemed.serve.live.player import Player
from edgemed.serve.loops import Beat
from edgemed.serve.services import Services

LOOP: Final = "live"
_LOOK_S: Final = 0.5
_STEP_NS: Final = 60 * SECOND  # a camera that does not answer is found by the watch long before


class LiveSources:
    """Each source has a loop of its own, `live NAME`; one more watches them."""

    name = "live"

    def __init__(self, services: Services) -> None:
        self._services = services
        self._players: list[Player] = []

    def start(self) -> None:
        """Begin.

        Raises:
            UsageError: an address or a policy that is none.
        """
        for section in self._services.config.live:
            channel = Channel(section.name, section.model, section.stale_ns)
            self._players.append(Player(self._services, section, channel))
            self._services.board.channels[section.name] = channel
        self._services.alarms.keep(("source-lost",), self._services.board.channels)
        for player in self._players:
            self._services.loops.start(f"live {player.channel.name}", player.run, limit_ns=_STEP_NS)
        if self._players:
            self._services.loops.start(LOOP, self._watch)

    def drain(self) -> None:
        """End the sources: what a camera shows is not kept."""
        for player in self._players:
            player.close()

    def stop(self) -> None:
        """The loops have ended with the others."""

    def _watch(self, beat: Beat) -> None:
        while beat.wait(_LOOK_S):
            for player in self._players:
                player.watch()
