"""The entry: `mitmdump -s addons/registry_proxy.py`.

What happens to one pull, from `CONNECT` to the last byte:

1. A container client opens `CONNECT quay.io:443`. `client_login` asks who it is, if the operator wants to know.
    `interception` decides: terminate TLS here, tunnel, or refuse. The engine's `connect_layer` answers and, for an
    intercepted host, puts TLS with a leaf of our CA (`certificates`) and our HTTP layer (`http_layer`) on the
    connection.
2. Each request is classified once (`interception`, by `oci.endpoint`): which registry, which repository, which tag or
    digest.
3. A request to the proxy's own address is answered by `admin_door` or `setup_responder`; unless it is one of the
    registry API, from a client that knows the proxy as its mirror. `mirror_door` finds out which registry it means.
    From there on it is as any other.
4. What the operator does not serve, or not to this client, is refused by `client_rules`. In a drill (`drilling`) the
    registry is away for some clients. A write is refused or streamed through by `push_bypass`.
5. `auth_injector` chooses between the client's own credentials and the operator's (`policy.precedence`). Our own
    requests to registries log in by themselves, with tokens where those are wanted (`origin.logins`). Who the client
    is, by its own login or the login that its token was given to, is known from `client_tokens`. `stale_logins` lets
    clients go on whose login is refused, where the operator's counts.
6. `/v2/`, the first request of every pull, is answered by `ping`, also when the registry is down; the request for a
    token that may follow by `token_requests`, also when the token server is down.
7. A manifest is answered by `manifest_cache`: by digest for good, by tag for its tier's time, revalidated by HEAD,
    stale in an outage. What is stored is for whom its registry lets read it: `access` knows, or asks.
8. A blob is answered by `blob_cache`: from its file, or from the download that is filling it. `sender` moves the
    bytes.
9. Lists and other small reads are asked for by `passed_reads`. What nobody answered goes to the registry through
    mitmproxy and streams back, unless the registry is known to be down (`passed_on`); `upstream_route` chooses its way.
10. `access_log` writes one line; `metrics` counts it, and `statistics`, for the `dashboard`. While the process ends
    (`ending`), an answer is the last one of its connection.

A connection begins at the `front_door` (`warm_connection`), which does all this by itself as long as what is asked for
is at hand (`warm_reads`). With the first request that is not, the connection goes over to mitmproxy and its hooks.

The list below is that order. It is the order of every hook, responses too. In debug mode (mitmweb) there is no front
door, and `debug_mode`, which shows every request, comes last.
"""

from regproxy.engine.certificates import Certificates
from regproxy.engine.registry_mode import FrontDoor
from regproxy.engine.sender import BodySender
from regproxy.stack.access_log import AccessLog
from regproxy.stack.admin.commands import AdminCommands
from regproxy.stack.admin_door import AdminDoor
from regproxy.stack.auth_injector import AuthInjector
from regproxy.stack.blob_cache import BlobCache
from regproxy.stack.client_login import ClientLogin
from regproxy.stack.client_rules import ClientRules
from regproxy.stack.client_tokens import ClientTokens
from regproxy.stack.core import Core
from regproxy.stack.dashboard import Dashboard
from regproxy.stack.drilling import Drilling
from regproxy.stack.ending import LastAnswers
from regproxy.stack.interception import Interception
from regproxy.stack.manifest_cache import ManifestCache
from regproxy.stack.metrics import Metrics
from regproxy.stack.metrics_page import MetricsPage
from regproxy.stack.mirror_door import MirrorAnswers, MirrorDoor
from regproxy.stack.passed_on import PassedOn
from regproxy.stack.passed_reads import PassedReads
from regproxy.stack.ping import RegistryPing
from regproxy.stack.pulls import Pulls
from regproxy.stack.push_bypass import PushBypass
from regproxy.stack.recent_requests import RecentRequests
from regproxy.stack.setup_responder import SetupResponder
from regproxy.stack.startup import Startup
from regproxy.stack.statistics import Statistics
from regproxy.stack.tallies import Tallies
from regproxy.stack.token_requests import TokenRequests
from regproxy.stack.upstream_route import UpstreamRoute
from regproxy.stack.warm_reads import WarmReads

_core = Core()
_certificates = Certificates()
_sender = BodySender()
_login = ClientLogin(_core)
_interception = Interception(_core, _login)
_mirror_door = MirrorDoor(_core, _login)
_manifests = ManifestCache(_core)
_blobs = BlobCache(_core)
_ping = RegistryPing(_core)
_metrics = Metrics(_core, _certificates)
_statistics = Statistics(_core)
_recent = RecentRequests()
_tallies = Tallies(_core, _statistics, _recent)
_drilling = Drilling(_core)
_log = AccessLog(_core, [_metrics.count, _statistics.count, _recent.note, Pulls(_core).note, _drilling.count])
_admin = AdminDoor(_core, _recent)
_warm_reads = WarmReads(_core, _interception, _ping, _manifests, _blobs, log=_log, mirror_door=_mirror_door)
_front_door = FrontDoor()

addons = [
    Startup(_core, _certificates, _sender, _front_door, _warm_reads, (_metrics, _tallies)),
    _front_door,
    _certificates,
    _sender,
    _login,
    _interception,
    _mirror_door,
    _admin,
    AdminCommands(_core, _admin.routes),
    MetricsPage(_metrics),
    Dashboard(_core, _statistics),
    SetupResponder(_core),
    ClientRules(_core),
    _drilling,
    PushBypass(_core),
    AuthInjector(_core),
    ClientTokens(_core),
    _ping,
    TokenRequests(_core),
    _manifests,
    _blobs,
    PassedOn(_core),
    PassedReads(_core),
    UpstreamRoute(_core, _interception),
    MirrorAnswers(),
    LastAnswers(_core),
    _log,
]
