"""The settings of a gateway; the command line fills them, see docs/edge.md."""

from dataclasses import dataclass

#: Where several reads are sent as one request, and how many at most.
BATCH_PATH = "/v1:batchGet"
MAX_BATCH_READS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every field has a default that suits a stand-alone gateway."""

    #: The workload that this edge is: methods whose policy does not name it are not routed.
    caller: str = "edge"
    #: Metadata set on every call.
    fixed_metadata: tuple[tuple[str, str], ...] = ()
    #: Request headers passed on besides the usual ones.
    forwarded_headers: tuple[str, ...] = ()
    #: Reply metadata passed back as headers besides the usual ones.
    exposed_headers: tuple[str, ...] = ()
    #: The share of the traces that begin here that are sampled, from 0 to 1.
    trace_share: float = 1.0
    #: A path prefix that routes ignore.
    prefix: str = "/api"
    #: How many proxies in front append to X-Forwarded-For; with 0 the client is the peer of the connection.
    trusted_hops: int = 0

    max_body: int = 1024 * 1024
    max_reply: int = 16 * 1024 * 1024
    max_url: int = 16 * 1024
    #: Seconds until the deadline of unary calls without a deadline of their own.
    default_timeout: float = 30.0
    #: Seconds that may pass between parts of a request body, and between reads of a response by the client.
    body_timeout: float = 30.0

    #: Whether unknown JSON fields are ignored rather than rejected.
    ignore_unknown: bool = False
    emit_defaults: bool = True
    proto_names: bool = False
    enum_numbers: bool = False
    #: Whether methods without an HTTP rule are served at POST /pkg.Service/Method.
    unbound: bool = False

    #: Seconds that caches may keep a public read.
    public_max_age: int = 5
    #: Seconds between heartbeats of idle streams.
    heartbeat: float = 15.0
    #: Origins that browsers may call from: exact ones, `https://*.example.com`, `http://localhost:*`, or `*`.
    cors_origins: tuple[str, ...] = ()
    cors_max_age: int = 7200
    #: Whether /openapi.json and the pages under /docs are served.
    docs: bool = True
    #: A directory of further pages to serve under /docs.
    static_dir: str = ""
    compress: bool = True
    #: Replies smaller than this are not compressed.
    compress_from: int = 1024
    #: Seconds between SIGTERM, when /healthz starts to fail, and the end of listening.
    drain_delay: float = 0.0
    #: Seconds that running calls may take after that.
    drain: float = 20.0
