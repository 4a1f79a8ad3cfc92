"""For load balancers and supervisors: whether the process lives, and whether it can serve. Neither asks for a token.

Both are answered before the doors, whose threads may all wait for a database that hangs: no reason to end the process.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from skerry_server.server import Server
from skerry_server.waiting import App, Receive, Scope, Send, say

LONGEST = 3.0


class Health:
    """ASGI middleware before all else that a server answers."""

    def __init__(self, app: App, server: Server) -> None:
        self._app = app
        self._server = server
        self._path = f"{server.settings.api_path}/skerry/health"
        self._thread = ThreadPoolExecutor(1, "health")
        self._looking: asyncio.Future[dict[str, bool]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = scope["path"] if scope["type"] == "http" and scope["method"] in {"GET", "HEAD"} else None
        if asked == f"{self._path}/live":
            await say(send, 200, {"alive": True})
        elif asked == f"{self._path}/ready":
            found = await self._look()
            ready = all(found.values())
            await say(send, 200 if ready else 503, {"ready": ready, **found})
        else:
            await self._app(scope, receive, send)

    async def _look(self) -> dict[str, bool]:
        """What has to be true; who asks while a look hangs waits for that one, and no longer than for a new one."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().run_in_executor(self._thread, self._server.is_ready)
        done, _ = await asyncio.wait({self._looking}, timeout=LONGEST)
        return self._looking.result() if done else {"in_time": False}
