"""The settings read again while the service runs: which of them change, and what is said of those that cannot.

What must not live here: processes (supervisor). New settings are never given to a worker that runs: they begin new
workers, and the old ones finish what they have. So nearly everything can change, and nothing changes halfway.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from proxy.care import reloaded
from proxy.config import ConfigError, Settings, changed
from proxy.errors import StartError
from proxy.worker.supervisor import Crew, say

FIXED = ("server.listen", "server.data", "admin.listen")
"""What the supervisor opened before there was any worker, and keeps."""


class Reload:
    """What the supervisor asks when it gets SIGHUP."""

    def __init__(
        self,
        asked: Settings,
        used: Settings,
        load: Callable[[], Settings],
        compose: Any,
        crew: Callable[[Settings], Crew],
    ) -> None:
        """`asked`: the settings as they were read; `used`: with the address and folder we have. Raises OSError."""
        self._asked = asked
        self._used = used
        self._load = load
        self._compose = compose
        self._crew = crew
        self._next = asked
        reloaded.note(used.server.data, "")

    def begin(self) -> Crew | None:
        """The workers to have from now on; None when the settings cannot be used, which is told."""
        try:
            self._next = self._load()
            settings = self._kept(self._next)
            self._compose.check(settings)
        except (ConfigError, StartError, OSError) as error:
            self.failed(str(error))
            return None
        return self._crew(settings)

    def done(self) -> None:
        """They serve."""
        self._note("")
        keys = changed(self._asked, self._next)
        for key in filter(keys.count, FIXED):
            say(f"{key} changed: that needs a restart, until then the old one stays")
        others = [key for key in keys if key not in FIXED]
        say(f"reloaded: {', '.join(others) or 'no setting'} changed")
        self._asked, self._used = self._next_with_old(), self._kept(self._next)

    def failed(self, why: str) -> None:
        """The old ones go on."""
        self._note(why)
        say(f"reload refused, the settings stay as they were: {why}")

    def _next_with_old(self) -> Settings:
        """What was asked, but for what still waits for a restart: the next reload says so again."""
        return _with_addresses(self._next, self._asked)

    def _kept(self, loaded: Settings) -> Settings:
        """The new settings with the address and the folder we have."""
        origins = {**loaded.origins, **{key: self._used.origins[key] for key in FIXED}}
        return replace(_with_addresses(loaded, self._used), origins=origins)

    def _note(self, mistake: str) -> None:
        try:
            reloaded.note(self._used.server.data, mistake)
        except OSError as error:
            say(
                f"{os.path.join(self._used.server.data, 'run')}: {error.strerror}: the state of the reload is not noted"
            )


def _with_addresses(settings: Settings, others: Settings) -> Settings:
    """The settings with what is FIXED of the others."""
    server = replace(settings.server, listen=others.server.listen, data=others.server.data)
    return replace(settings, server=server, admin=replace(settings.admin, listen=others.admin.listen))
