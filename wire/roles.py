"""Who may do what: the roles of certificates, and the roles that each method is for.

On the operator API ``observer`` reads, ``operator`` reads and commands.

A certificate's common name is ``ROLE``, or ``ROLE@HOST`` where it is one host's alone. Without TLS, on
loopback, there are no roles and everything is permitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

CONTROLLER = "controller"
EDGE_AGENT = "edge-agent"
GNB_MOCK = "gnb-mock"
OPERATOR = "operator"
OBSERVER = "observer"
PTP_AGENT = "ptp-agent"
PROMETHEUS = "prometheus"
ROLES = (CONTROLLER, EDGE_AGENT, GNB_MOCK, OPERATOR, OBSERVER, PTP_AGENT, PROMETHEUS)
"""Holders of a TLS certificate; a service of docker-compose.yml has its role's name."""

_READS_GPU = frozenset({CONTROLLER, EDGE_AGENT, GNB_MOCK, OPERATOR})
_READS_CONTROLLER = frozenset({CONTROLLER, EDGE_AGENT, GNB_MOCK, OPERATOR, OBSERVER, PTP_AGENT})
_COMMANDS = frozenset({CONTROLLER, OPERATOR})

METHODS: Mapping[str, frozenset[str]] = {
    "/prbandit.edge.Edge/Hello": _READS_GPU,
    "/prbandit.edge.Edge/WatchGpu": _READS_GPU,
    "/prbandit.edge.Edge/LockClocks": frozenset({CONTROLLER}),
    "/prbandit.edge.Edge/ReleaseClocks": frozenset({CONTROLLER}),
    # The edge's own: an application server beside an emulated GPU.
    "/prbandit.edge.EmulatedGpu/SetLoad": frozenset({GNB_MOCK, EDGE_AGENT}),
    "/prbandit.operator.Operator/Hello": _READS_CONTROLLER,
    "/prbandit.operator.Operator/GetState": _READS_CONTROLLER,
    "/prbandit.operator.Operator/WatchDecisions": _READS_CONTROLLER,
    "/prbandit.operator.Operator/SetMode": _COMMANDS,
    "/prbandit.operator.Operator/SwitchPolicy": _COMMANDS,
    "/prbandit.operator.Operator/SetBudgets": _COMMANDS,
    "/prbandit.operator.Operator/SetOptions": _COMMANDS,
    "/prbandit.operator.Operator/SetQuota": _COMMANDS,
    "/prbandit.operator.Operator/ClearQuota": _COMMANDS,
    "/prbandit.operator.Operator/SetLease": _COMMANDS,
    "/prbandit.operator.Operator/Reload": _COMMANDS,
    "/prbandit.operator.Operator/Checkpoint": _COMMANDS,
    "/prbandit.operator.Operator/ShutDown": _COMMANDS,
    "/grpc.health.v1.Health/Check": _READS_CONTROLLER,
    "/grpc.health.v1.Health/Watch": _READS_CONTROLLER,
    "/grpc.health.v1.Health/List": _READS_CONTROLLER,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _READS_CONTROLLER,
    "/prbandit.qos.QosIngest/Publish": frozenset({EDGE_AGENT, GNB_MOCK, PTP_AGENT}),
    "/prbandit.qos.QosIngest/ListUes": frozenset({EDGE_AGENT, GNB_MOCK}),
}
"""gRPC method -> the roles that may call it."""

METRICS_READERS = frozenset({OPERATOR, OBSERVER, PROMETHEUS})
"""Roles that may read a metrics page."""

TELLS_EDGE_CLOCK = frozenset({EDGE_AGENT, PTP_AGENT})
"""Roles whose word on a host's clock may count for other hosts' frames; others tell of their own alone."""

CLOCK_STREAM = "ptp@"
"""Before a host's name, in QosHello.host: the stream of the host's PTP agent, beside those of its frames."""


class Identity(NamedTuple):
    """What a certificate's common name says; ``host`` is empty where it is not one host's alone."""

    role: str
    host: str = ""

    @property
    def common_name(self) -> str:
        return f"{self.role}@{self.host}" if self.host else self.role


def identity(common_name: str) -> Identity:
    """The identity of a certificate."""
    role, _, host = common_name.partition("@")
    return Identity(role, host)


def clock_host(stream_host: str) -> str:
    """The host whose clock a stream with this QosHello.host may tell of."""
    return stream_host.removeprefix(CLOCK_STREAM)
