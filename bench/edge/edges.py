"""The edges that are compared, each started as a process of its own."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.stack.servers.envoy import binary

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True)
class Started:
    """A running edge."""

    process: subprocess.Popen[bytes]
    port: int


def ours(descriptors: Path, back_end: int, port: int, log: Path, *options: str) -> Started:
    """Start the edge of this project."""
    command = [
        *(sys.executable, "-m", "edge_gateway", "--descriptor-set", str(descriptors)),
        *("--upstream", f"*=127.0.0.1:{back_end}", "--listen", f"127.0.0.1:{port}", *options),
    ]
    return _start(command, port, log)


def starlette(folder: Path, back_end: int, port: int, log: Path) -> Started:
    """An edge as it is usually written in Python."""
    command = [sys.executable, "-m", "bench.edge.starlette_edge", str(folder), str(back_end), str(port)]
    return _start(command, port, log)


def envoy(descriptors: Path, back_end: int, port: int, log: Path) -> Started:
    """Envoy's grpc_json_transcoder, one worker, no access log."""
    bootstrap = log.with_suffix(".json")
    bootstrap.write_text(json.dumps(_bootstrap(descriptors, back_end, port)))
    flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    return _start([str(binary()), "-c", str(bootstrap), *flags], port, log)


def go_gateway(program: Path, back_end: int, port: int, log: Path) -> Started:
    """grpc-gateway, as it comes."""
    return _start([str(program), f"127.0.0.1:{back_end}", f"127.0.0.1:{port}"], port, log)


def _start(command: list[str], port: int, log: Path) -> Started:
    with log.open("wb") as out:
        return Started(subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out), port)


def _bootstrap(descriptors: Path, back_end: int, port: int) -> dict[str, Any]:
    types = "type.googleapis.com/envoy.extensions.filters"
    transcoder = {
        "@type": f"{types}.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor": str(descriptors),
        "services": ["bench.v1.OrderService"],
        "convert_grpc_status": True,
        "print_options": {"always_print_primitive_fields": True},
    }
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "back", "timeout": "10s"}}],
                }
            ]
        },
        "http_filters": [
            {"name": "transcoder", "typed_config": transcoder},
            {"name": "router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}},
        ],
    }
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "static_resources": {
            "listeners": [
                {
                    "address": _address(port),
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "back",
                    "type": "STATIC",
                    "typed_extension_protocol_options": {
                        options: {
                            "@type": f"type.googleapis.com/{options}",
                            "explicit_http_config": {"http2_protocol_options": {}},
                        }
                    },
                    "load_assignment": {
                        "cluster_name": "back",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(back_end)}}]}],
                    },
                }
            ],
        }
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
