"""What the admin API can do about outages: tell how one would be, and try it on some clients."""

from regproxy.stack.admin.drills import DRILLS, answer_others, begin_drill, end_drill, list_drills
from regproxy.stack.admin.queries import Json, Parameter, Query, Route
from regproxy.stack.admin.readiness import READINESS, describe_readiness
from regproxy.stack.core import Core

_REGISTRY = Parameter("target", "target", "a registry", required=True)


class Outages:
    """The handlers."""

    def __init__(self, core: Core) -> None:
        self._core = core
        answer_others(core)
        self.routes: tuple[Route, ...] = (
            Route(
                method="GET",
                path="/readiness",
                name="readiness",
                summary="Which images that are in use would fail while their registry is away",
                handler=self._get_readiness,
                answer=READINESS,
                parameters=(
                    Parameter("target", "target", "an image, a repository, a registry or a digest"),
                    Parameter("window", "duration", "what was pulled within; READINESS_WINDOW without it"),
                ),
            ),
            Route(
                method="GET",
                path="/drills",
                name="listDrills",
                summary="What came of drills",
                handler=self._get_drills,
                answer=DRILLS,
            ),
            Route(
                method="POST",
                path="/drills",
                name="drill",
                summary="Let a registry be away for some clients, and note what they do not get",
                handler=self._post_drills,
                answer=DRILLS,
                parameters=(
                    _REGISTRY,
                    Parameter("clients", "text", "addresses and networks, parted by commas", required=True),
                    Parameter("duration", "duration", "for how long", required=True),
                ),
            ),
            Route(
                method="DELETE",
                path="/drills",
                name="endDrill",
                summary="Let a registry be there again; what came of the drill stays",
                handler=self._delete_drills,
                answer=DRILLS,
                parameters=(_REGISTRY,),
            ),
        )

    async def _get_readiness(self, query: Query) -> Json:
        asked_s = query.duration_s("window")
        window_s = self._core.settings.readiness_window_s if asked_s is None else asked_s
        return await describe_readiness(self._core.store, window_s, query.target("target"))

    async def _get_drills(self, _: Query) -> Json:
        return await list_drills(self._core)

    async def _post_drills(self, query: Query) -> Json:
        target = query.target("target")
        assert target is not None
        return await begin_drill(self._core, target, query.text("clients"), query.duration_s("duration") or 0.0)

    async def _delete_drills(self, query: Query) -> Json:
        target = query.target("target")
        assert target is not None
        return await end_drill(self._core, target)
