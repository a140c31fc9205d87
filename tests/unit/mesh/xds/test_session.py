"""The protocol of one stream: what is sent, in which order, and what is not sent again."""

from envoy_data_plane.envoy.config.cluster import v3 as cluster
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.endpoint import v3 as endpoint
from envoy_data_plane.envoy.config.listener import v3 as listener
from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.service.discovery import v3 as discovery
from envoy_data_plane.google.rpc import Status

from mesh.xds.resources import CDS, EDS, LDS, RDS, SDS, TYPES, resource, snapshot
from mesh.xds.session import Session, WholeSession


def a_cluster(name="a", alt=""):
    return resource(name, cluster.Cluster(name=name, alt_stat_name=alt))


def endpoints(name="a"):
    return resource(name, endpoint.ClusterLoadAssignment(cluster_name=name))


def a_listener(name="in", stat=""):
    return resource(name, listener.Listener(name=name, stat_prefix=stat))


def a_table(name="in", header=""):
    host = route.VirtualHost(name="all", domains=["*"], request_headers_to_remove=[header] if header else [])
    return resource(name, route.RouteConfiguration(name=name, virtual_hosts=[host]))


BEFORE = snapshot([a_cluster(), endpoints(), a_listener(), a_table()])


class Proxy:
    """The other side of a delta stream, which records what it gets."""

    def __init__(self, session):
        self.session = session
        self.received = []
        self.waiting = []

    def ask(self, kind, *names, known=None):
        self.session.receive(
            discovery.DeltaDiscoveryRequest(
                node=core.Node(id="n"),
                type_url=kind,
                resource_names_subscribe=list(names),
                initial_resource_versions=known or {},
            )
        )

    def take(self, current):
        """Return what is due now, as (type, names, removed)."""
        responses = list(self.session.due(current))
        self.waiting += responses
        return [(one.type_url, [r.name for r in one.resources], one.removed_resources) for one in responses]

    def answer(self, *, rejects=""):
        """Accept what waits, except the resource named."""
        new = []
        for one in self.waiting:
            rejected = rejects in [r.name for r in one.resources]
            error = Status(code=3, message="no such thing") if rejected else None
            new += self.session.receive(
                discovery.DeltaDiscoveryRequest(type_url=one.type_url, response_nonce=one.nonce, error_detail=error)
            )
        self.waiting = []
        return new

    def everything(self, current):
        """Subscribe to all, and accept it."""
        self.ask(CDS)
        self.ask(LDS)
        self.ask(EDS, "a")
        self.ask(RDS, "in")
        self.take(current)
        self.answer()
        return self


def names_of(taken):
    return [(kind, name) for kind, names, _ in taken for name in names]


def removed(taken):
    return [(kind, name) for kind, _, names in taken for name in names]


def test_a_proxy_gets_what_it_asks_for_in_an_order_that_breaks_nothing():
    proxy = Proxy(Session())
    for kind, *names in ((RDS, "in"), (LDS,), (EDS, "a"), (CDS,)):
        proxy.ask(kind, *names)
    assert names_of(proxy.take(BEFORE)) == [(CDS, "a"), (EDS, "a"), (LDS, "in"), (RDS, "in")]
    assert TYPES == (CDS, EDS, LDS, RDS, SDS)
    proxy.answer()
    assert proxy.session.in_sync
    assert proxy.take(BEFORE) == []


def test_only_what_has_changed_is_sent():
    proxy = Proxy(Session()).everything(BEFORE)
    after = snapshot([a_cluster(), endpoints(), a_listener(), a_table(header="x")])
    assert names_of(proxy.take(after)) == [(RDS, "in")]


def test_a_changed_cluster_gets_its_endpoints_again_or_it_would_stay_warming():
    proxy = Proxy(Session()).everything(BEFORE)
    after = snapshot([a_cluster(alt="x"), endpoints(), a_listener(), a_table()])
    assert names_of(proxy.take(after)) == [(CDS, "a"), (EDS, "a")]


def test_endpoints_that_are_subscribed_to_after_the_change_of_their_cluster_are_sent_then():
    proxy = Proxy(Session())
    proxy.ask(CDS, known={"a": "older"})
    assert names_of(proxy.take(BEFORE)) == [(CDS, "a")]
    proxy.answer()
    proxy.ask(EDS, "a", known={"a": BEFORE[EDS]["a"].version})
    assert names_of(proxy.take(BEFORE)) == [(EDS, "a")]


def test_a_proxy_that_connects_again_gets_nothing_that_it_has():
    proxy = Proxy(Session())
    for kind, name in ((CDS, "a"), (LDS, "in"), (EDS, "a"), (RDS, "in")):
        wildcard = kind in (CDS, LDS)
        proxy.ask(kind, *(() if wildcard else (name,)), known={name: BEFORE[kind][name].version})
    assert proxy.take(BEFORE) == []


def test_what_is_gone_when_a_proxy_connects_again_is_removed():
    proxy = Proxy(Session())
    proxy.ask(CDS, known={"a": BEFORE[CDS]["a"].version, "old": "1"})
    assert removed(proxy.take(BEFORE)) == [(CDS, "old")]


def test_a_name_that_is_subscribed_to_again_is_answered_although_nothing_has_changed():
    proxy = Proxy(Session()).everything(BEFORE)
    proxy.ask(EDS, "a")
    assert names_of(proxy.take(BEFORE)) == [(EDS, "a")]


def test_a_name_that_does_not_exist_is_answered_as_removed():
    proxy = Proxy(Session())
    proxy.ask(RDS, "nothing")
    assert proxy.take(BEFORE) == [(RDS, [], ["nothing"])]


def test_each_resource_is_a_response_so_that_a_rejection_names_it():
    proxy = Proxy(Session())
    proxy.ask(CDS)
    current = snapshot([a_cluster("a"), a_cluster("b")])
    assert proxy.take(current) == [(CDS, ["a"], []), (CDS, ["b"], [])]
    (nack,) = proxy.answer(rejects="b")
    assert (nack.type_url, nack.name, nack.reason) == (CDS, "b", "no such thing")
    assert proxy.session.nacks == [nack]
    assert not proxy.session.in_sync


def test_a_rejected_resource_is_not_sent_again_and_the_last_accepted_one_is():
    proxy = Proxy(Session()).everything(BEFORE)
    broken = snapshot([a_cluster(), endpoints(), a_listener(), a_table(header="broken")])
    proxy.take(broken)
    proxy.answer(rejects="in")
    assert names_of(proxy.take(broken)) == [(RDS, "in")], "the version before, as a proxy that asks again must have it"
    sent = proxy.waiting[0].resources[0].version
    assert sent == BEFORE[RDS]["in"].version
    proxy.answer()
    assert proxy.take(broken) == []


def test_a_better_version_ends_a_rejection():
    proxy = Proxy(Session()).everything(BEFORE)
    proxy.take(snapshot([a_cluster(), endpoints(), a_listener(), a_table(header="broken")]))
    proxy.answer(rejects="in")
    better = snapshot([a_cluster(), endpoints(), a_listener(), a_table(header="better")])
    assert names_of(proxy.take(better)) == [(RDS, "in")]
    proxy.answer()
    assert proxy.session.nacks == []
    assert proxy.session.in_sync


def test_a_removal_waits_until_what_replaces_it_is_accepted_and_clusters_go_last():
    proxy = Proxy(Session()).everything(BEFORE)
    after = snapshot([a_cluster("b"), endpoints("b"), a_table(header="b")])
    assert proxy.take(after) == [(CDS, ["b"], []), (RDS, ["in"], [])]
    proxy.answer()
    assert proxy.take(after) == [(LDS, [], ["in"])]
    proxy.answer()
    assert proxy.take(after) == [(EDS, [], ["a"])]
    proxy.answer()
    assert proxy.take(after) == [(CDS, [], ["a"])]
    proxy.answer()
    assert proxy.take(after) == []


def test_nothing_is_removed_while_a_rejected_resource_leaves_an_older_one_in_use():
    proxy = Proxy(Session()).everything(BEFORE)
    after = snapshot([a_cluster("b"), endpoints("b"), a_listener(), a_table(header="broken")])
    proxy.take(after)
    proxy.answer(rejects="in")
    proxy.take(after)
    proxy.answer()
    assert removed(proxy.take(after)) == []


class WholeProxy(Proxy):
    """The other side of a state-of-the-world stream."""

    def __init__(self, session):
        super().__init__(session)
        self.names = {}

    def ask(self, kind, *names):
        self.names[kind] = list(names)
        node = core.Node(id="n")
        self.session.receive(discovery.DiscoveryRequest(node=node, type_url=kind, resource_names=list(names)))

    def take(self, current):
        responses = list(self.session.due(current))
        self.waiting += responses
        return [(one.type_url, len(one.resources), one.version_info) for one in responses]

    def answer(self, *, rejects=""):
        new = []
        for one in self.waiting:
            error = Status(code=3, message="no such thing") if one.type_url == rejects else None
            new += self.session.receive(
                discovery.DiscoveryRequest(
                    type_url=one.type_url,
                    resource_names=self.names[one.type_url],
                    response_nonce=one.nonce,
                    error_detail=error,
                )
            )
        self.waiting = []
        return new


def test_state_of_the_world_holds_all_of_a_type_and_changes_its_version_with_any_of_them():
    proxy = WholeProxy(WholeSession()).everything(BEFORE)
    assert proxy.session.in_sync
    after = snapshot([a_cluster(), a_cluster("b"), endpoints(), endpoints("b"), a_listener(), a_table()])
    # The endpoints of the cluster before follow: it may be warming.
    assert [(kind, count) for kind, count, _ in proxy.take(after)] == [(CDS, 2), (EDS, 1)]


def test_state_of_the_world_keeps_what_is_gone_until_its_replacement_is_accepted():
    proxy = WholeProxy(WholeSession()).everything(BEFORE)
    after = snapshot([a_cluster("b"), endpoints("b"), a_listener(), a_table(header="b")])
    assert [(kind, count) for kind, count, _ in proxy.take(after)] == [(CDS, 2), (RDS, 1)]
    proxy.answer()
    assert [(kind, count) for kind, count, _ in proxy.take(after)] == [(EDS, 0)]
    proxy.answer()
    assert [(kind, count) for kind, count, _ in proxy.take(after)] == [(CDS, 1)]


def test_an_answer_to_an_older_response_changes_no_subscription():
    session = WholeSession()
    proxy = WholeProxy(session)
    proxy.ask(RDS, "in")
    proxy.take(BEFORE)
    session.receive(discovery.DiscoveryRequest(type_url=RDS, resource_names=[], response_nonce="older"))
    proxy.answer()
    after = snapshot([a_table(header="x")])
    assert [(kind, count) for kind, count, _ in proxy.take(after)] == [(RDS, 1)]


def test_versions_are_those_of_the_content():
    assert a_cluster().version == a_cluster().version
    assert a_cluster().version != a_cluster(alt="x").version
