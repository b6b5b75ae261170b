"""No sequence of events lets anybody read what the registry never let him read: the world beside the book."""

import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import GIVEN_TO, AccessRules, Known, Repository, may_take_at_its_word
from regproxy.policy.identities import NOBODY, Identity
from regproxy.policy.openers import OpenedBy
from regproxy.store import access_book
from regproxy.store.content import Store

RULES = AccessRules(lifetime_s=100.0, grace_s=1000.0)
CLIENTS = [NOBODY, Identity("aa" * 20), Identity("bb" * 20)]
REPOSITORIES = [
    Repository(Registry("quay.io"), "a"),
    Repository(Registry("quay.io"), "b"),
    Repository(Registry("evil.test"), "a"),
]
DIGESTS = [Digest.of(b"0"), Digest.of(b"1"), Digest.of(b"2", "sha512")]

WHO = st.sampled_from(CLIENTS)
WHERE = st.sampled_from(REPOSITORIES)
WHAT = st.sampled_from(DIGESTS)
HOW = st.sampled_from(list(OpenedBy))


class AccessMachine(RuleBasedStateMachine):
    """Answers, refusals, words, arrivals, time, forgetting, restarts and crashes."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="access-machine-"))
        self.loop = asyncio.new_event_loop()
        self.now_s = 1_000_000_000.0
        self.let_in: set[tuple[Repository, OpenedBy, Identity]] = set()
        self.had: set[tuple[Repository, Digest]] = set()

    @initialize()
    def start(self) -> None:
        """Open the store."""
        self.store = Store(self.directory / "cache", 1 << 30, 1e9, 0, lambda: self.now_s)
        self.store.open()

    @rule(where=WHERE, how=HOW, who=WHO, let_in=st.booleans())
    def the_registry_answers(self, where: Repository, how: OpenedBy, who: Identity, let_in: bool) -> None:
        """Let somebody in, or refuse."""
        self.known(where, who, None)
        self.store.access.answered(where, how, who, let_in=let_in, now_s=self.now_s)
        self.note(where, how, who, let_in)

    @rule(where=WHERE, how=HOW, who=WHO, what=WHAT, arrives=st.booleans())
    def content_comes(self, where: Repository, how: OpenedBy, who: Identity, what: Digest, arrives: bool) -> None:
        """Download something, to the end or not."""
        self.known(where, who, what)
        with self.store.access.arriving() as arriving:
            self.store.access.answered(where, how, who, let_in=True, now_s=self.now_s)
            self.note(where, how, who, True)
            arriving.begin(where, what, GIVEN_TO[how], who)
            if arrives:
                arriving.arrived()
                self.had.add((where, what))

    @rule(where=WHERE, how=HOW, who=WHO, what=WHAT)
    def a_registry_says_that_it_has_it(self, where: Repository, how: OpenedBy, who: Identity, what: Digest) -> None:
        """Take its word about what is its own, or public, or from nobody knows where."""
        holders = self.loop.run_until_complete(self.store.access.holders(what))
        assert {(holder.registry) for holder in holders} <= {repository.registry for repository, _ in self.had}
        self.known(where, who, what)
        if may_take_at_its_word(where.registry, holders):
            self.store.access.bind(where, what, GIVEN_TO[how])
            self.had.add((where, what))

    @rule(seconds=st.sampled_from([1.0, 99.0, 101.0, 999.0, 2000.0]))
    def time_passes(self, seconds: float) -> None:
        """Make some of what is known too old."""
        self.now_s += seconds

    @rule()
    def flush(self) -> None:
        """Write what was learnt."""
        self.loop.run_until_complete(self.store.access.flush())

    @rule()
    def restart(self) -> None:
        """Close and open."""
        self.store.close()
        self.store.open()

    @rule(tidy_s=st.sampled_from([0.0, 1000.0]))
    def tidy(self, tidy_s: float) -> None:
        """Throw away what is of no use: all bindings here, for nothing is stored."""
        self.flush()
        assert self.store._ledger is not None
        self.loop.run_until_complete(self.store._ledger.tidy_access(self.now_s - tidy_s))

    @invariant()
    def nobody_reads_what_he_may_not(self) -> None:
        """Whoever is allowed was let in by the registry, not refused since, and the repository had it."""
        if not hasattr(self, "store"):
            return
        for where in REPOSITORIES:
            for who in CLIENTS:
                for what in DIGESTS:
                    for known in (self.store.access.recall(where, who, what), self.known(where, who, what)):
                        if RULES.allows_in_outage(known, self.now_s) is not None:
                            assert (where, what) in self.had
                            assert self.someone_let_in(where, who)

    def someone_let_in(self, where: Repository, who: Identity) -> bool:
        """Whether everybody, the operator, or this very client was let in last."""
        ways = {(OpenedBy.NOBODY, NOBODY), (OpenedBy.OPERATOR, NOBODY)} | (
            set() if who.is_nobody else {(OpenedBy.CLIENT, who)}
        )
        return any((where, how, whose) in self.let_in for how, whose in ways)

    def note(self, where: Repository, how: OpenedBy, who: Identity, let_in: bool) -> None:
        """Keep what is true."""
        key = where, how, who if how is OpenedBy.CLIENT else NOBODY
        (self.let_in.add if let_in else self.let_in.discard)(key)

    def known(self, where: Repository, who: Identity, what: Digest | None) -> Known:
        """Return what the book knows."""
        return self.loop.run_until_complete(self.store.access.known(where, who, what))

    def teardown(self) -> None:
        """Leave nothing."""
        self.store.close()
        self.loop.close()
        shutil.rmtree(self.directory)


@pytest.mark.parametrize("bound", [100_000, 2])
def test_no_sequence_of_events_opens_what_was_never_proven(bound: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when memory holds next to nothing."""
    for name in ("REPOSITORIES", "BINDINGS", "PROOFS"):
        monkeypatch.setattr(access_book, name, bound)
    AccessMachine.TestCase.settings = settings(
        max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
    )
    AccessMachine.TestCase("runTest").runTest()
