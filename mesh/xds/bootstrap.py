"""The bootstrap of a proxy of the mesh: nothing but its name and the address of the control plane."""

from datetime import timedelta

from envoy_data_plane.envoy.config.bootstrap import v3 as bootstrap
from envoy_data_plane.envoy.config.cluster import v3 as cluster
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.endpoint import v3 as endpoint
from envoy_data_plane.envoy.extensions.upstreams.http import v3 as upstreams

from mesh.proxy.clusters import pack, socket_address
from mesh.xds.resources import ADS

_CONTROL_PLANE = "control_plane"
#: Without it, a proxy may wait for 30 s before it tries a restarted control plane again.
_BACK_OFF = core.BackoffStrategy(base_interval=timedelta(milliseconds=200), max_interval=timedelta(seconds=1))
#: Notices a control plane that hangs without closing.
_KEEPALIVE = core.KeepaliveSettings(interval=timedelta(seconds=5), timeout=timedelta(seconds=3))


def node_bootstrap(node: str, *, control_plane: str, admin: str, delta: bool = True) -> bootstrap.Bootstrap:
    """Return the bootstrap of the proxy `node`; `control_plane` and `admin` are unix:/path."""
    kinds = core.ApiConfigSourceApiType
    stream = core.ApiConfigSource(
        api_type=kinds.DELTA_GRPC if delta else kinds.GRPC,
        transport_api_version=core.ApiVersion.V3,
        set_node_on_first_message_only=True,
        grpc_services=[
            core.GrpcService(
                envoy_grpc=core.GrpcServiceEnvoyGrpc(
                    cluster_name=_CONTROL_PLANE, retry_policy=core.RetryPolicy(retry_back_off=_BACK_OFF)
                )
            )
        ],
    )
    return bootstrap.Bootstrap(
        node=core.Node(id=node, cluster="shopmesh"),
        admin=bootstrap.Admin(address=socket_address(admin)),
        dynamic_resources=bootstrap.BootstrapDynamicResources(ads_config=stream, cds_config=ADS, lds_config=ADS),
        static_resources=bootstrap.BootstrapStaticResources(clusters=[_control_plane(control_plane)]),
    )


def _control_plane(address: str) -> cluster.Cluster:
    explicit = upstreams.HttpProtocolOptionsExplicitHttpConfig(
        http2_protocol_options=core.Http2ProtocolOptions(connection_keepalive=_KEEPALIVE)
    )
    host = endpoint.LbEndpoint(endpoint=endpoint.Endpoint(address=socket_address(address)))
    return cluster.Cluster(
        name=_CONTROL_PLANE,
        type=cluster.ClusterDiscoveryType.STATIC,
        connect_timeout=timedelta(seconds=1),
        load_assignment=endpoint.ClusterLoadAssignment(
            cluster_name=_CONTROL_PLANE, endpoints=[endpoint.LocalityLbEndpoints(lb_endpoints=[host])]
        ),
        typed_extension_protocol_options={
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": pack(
                upstreams.HttpProtocolOptions(explicit_http_config=explicit)
            )
        },
    )
