"""What the addons of the stack share: settings, store, upstream client, authority."""

import logging
import time
from collections.abc import Callable

from regproxy.engine.drain import Drain
from regproxy.engine.nameservers import lookup_at
from regproxy.origin.authorized import AuthorizedUpstream
from regproxy.origin.credential_source import CredentialSource
from regproxy.origin.resolver import Lookup, system_lookup
from regproxy.policy.access import AccessRules
from regproxy.policy.drills import Drills
from regproxy.policy.identities import IdentityKey
from regproxy.policy.readiness import Summary
from regproxy.settings import Settings
from regproxy.shared.tier import SharedTier
from regproxy.stack.accepted_logins import AcceptedLogins
from regproxy.stack.access import AccessControl
from regproxy.stack.ca import Ca
from regproxy.stack.client_identities import ClientIdentities
from regproxy.stack.credentials import credential_source, intercepting
from regproxy.stack.desk import Desk
from regproxy.stack.downloads import Downloads
from regproxy.stack.elsewhere import Elsewhere
from regproxy.stack.not_found import NotFound
from regproxy.stack.turns import Turns
from regproxy.store.content import Store
from regproxy.store.errors import StoreError

logger = logging.getLogger(__name__)


class Core:
    """Filled by `startup` before the first request; `ready` says so.

    Reading a part before it is there is a programming error and raises AssertionError.
    """

    def __init__(self) -> None:
        self._settings: Settings | None = None
        self._credentials: CredentialSource | None = None
        self._store: Store | None = None
        self._upstream: AuthorizedUpstream | None = None
        self._ca: Ca | None = None
        self._identities: ClientIdentities | None = None
        self._access: AccessControl | None = None
        self._store_failed = False
        self.on_store_state: Callable[[bool], None] = lambda _: None
        """Called when the store begins to fail (True) and when it works again."""
        self.shared: SharedTier | None = None
        """The bucket behind the store, if there is one."""
        self.accepted_logins = AcceptedLogins()
        """Which logins of clients were right."""
        self.own_ports: set[int] = set()
        """The proxy's port and those of its web interface: what nobody may reach through the proxy."""
        self.not_found = NotFound(0.0)
        """What registries did not have a moment ago."""
        self.downloads = Downloads()
        """Which downloads run, and who waits for them."""
        self.readiness: Summary | None = None
        """How the images that are in use would do in an outage, as of the last look."""
        self.drills = Drills(time.time)
        """For which clients registries are said to be away."""
        self.drain: Drain | None = None
        """How this process ends, once it serves."""
        self.desk = Desk()
        """Where operators are answered, for all workers."""
        self.elsewhere = Elsewhere()
        """What other workers have counted."""
        self.turns = Turns()
        """Who asks, where several workers want to know the same."""
        self.lookup: Lookup = system_lookup
        """How the names of upstreams become addresses."""

    def configure(self, settings: Settings) -> None:
        """Set what was asked for, and read the file of logins that it names."""
        self._credentials = credential_source(settings)
        self._settings = intercepting(settings, self._credentials.places())
        self.own_ports = {settings.listen_port}
        self.not_found = NotFound(settings.not_found_s)
        self.lookup = lookup_at(settings.nameservers) if settings.nameservers else system_lookup

    def start(self, store: Store, upstream: AuthorizedUpstream, ca: Ca, shared: SharedTier | None = None) -> None:
        """Set what was opened: from now on requests can be answered."""
        self.shared = shared
        self._store, self._upstream, self._ca = store, upstream, ca
        self._identities = ClientIdentities(IdentityKey(store.identity_key))
        rules = AccessRules(self.settings.access_ttl_s, self.settings.access_grace_s)
        self._access = AccessControl(
            rules,
            self.settings.private_images,
            store,
            upstream,
            self.store_failed,
            others=None if shared is None else shared.access,
        )

    @property
    def ready(self) -> bool:
        """Whether requests can be answered."""
        return self._store is not None

    @property
    def is_ending(self) -> bool:
        """Whether clients had better go to another replica."""
        return self.drain is not None and self.drain.has_begun

    @property
    def settings(self) -> Settings:
        """The settings."""
        assert self._settings is not None
        return self._settings

    @property
    def credentials(self) -> CredentialSource:
        """The operator's credentials."""
        assert self._credentials is not None
        return self._credentials

    @property
    def store(self) -> Store:
        """The store."""
        assert self._store is not None
        return self._store

    @property
    def upstream(self) -> AuthorizedUpstream:
        """The upstream client."""
        assert self._upstream is not None
        return self._upstream

    @property
    def ca(self) -> Ca:
        """Our CAs, and who has them."""
        assert self._ca is not None
        return self._ca

    @property
    def identities(self) -> ClientIdentities:
        """Who the clients are."""
        assert self._identities is not None
        return self._identities

    @property
    def access(self) -> AccessControl:
        """Who may read what is stored."""
        assert self._access is not None
        return self._access

    def store_failed(self, error: StoreError | OSError) -> None:
        """Say once, loudly, that the store does not work; the pulls go on without it."""
        level = logging.DEBUG if self._store_failed else logging.ERROR
        if not self._store_failed:
            self._store_failed = True
            self.on_store_state(True)
        logger.log(level, "the cache does not work, pulls go on without it: %s", error)

    def store_worked(self) -> None:
        """Say once that the store works again."""
        if self._store_failed:
            self._store_failed = False
            self.on_store_state(False)
            logger.warning("the cache works again")

    def hear_store_state(self, *, fails: bool) -> None:
        """Take over what another worker has said of the store."""
        self._store_failed = fails
