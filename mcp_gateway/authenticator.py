"""Authentication of callers: the facts about a token, and whether its holder may call at this moment."""

from bus.ctx import Ctx
from bus.scopes import Scope
from bus.tenancy import authentication
from bus.tenancy.authentication import CallerStatus
from mcp_gateway.caller import CallerCache
from mcp_gateway.engine_runner import EngineRunner


class Authenticator:
    """Finds and checks the callers of one process.

    Attributes:
        cache: the immutable facts about tokens.
    """

    def __init__(self, engine: EngineRunner) -> None:
        self.cache = CallerCache()
        self._engine = engine

    async def find_caller(self, token_fingerprint: bytes) -> Ctx | None:
        """Return the facts about a token, from the cache or the database; None if the token was never minted.

        Raises:
            RequestDenied: the database is unavailable, or too many calls are queued.
        """
        ctx = self.cache.find_cached(token_fingerprint)
        if ctx is not None:
            return ctx

        def find() -> Ctx | None:
            with self._engine.db.connection() as conn:
                return self.cache.find_and_cache(conn, token_fingerprint)

        return await self._engine.run_in_thread(find)

    async def authorize(self, ctx: Ctx | None) -> CallerStatus | None:
        """Check that the caller may call now; None if there is no token.

        Raises:
            RequestDenied: the caller may not call, or the check is not possible at present.
        """
        if ctx is None:
            return None
        return await self._engine.run_as_caller(ctx, lambda conn: authentication.authenticate(conn, ctx))

    async def find_offered_scope(self, ctx: Ctx) -> Scope:
        """Check that the caller may call now, and return the scope of the tools that it is shown.

        Raises:
            RequestDenied: as for `authorize`.
        """
        return await self._engine.run_as_caller(ctx, lambda conn: authentication.find_offered_scope(conn, ctx))
