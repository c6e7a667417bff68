"""The channel a caller opens: balanced over all servers of a name, and away from one that stops before it has."""

import json

import grpc

SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    # A server that stops says so here first; callers that do not listen lose calls to its stop.
    "healthCheckConfig": {"serviceName": ""},
    "methodConfig": [
        {
            "name": [{"service": "segue.v1.PropensityService"}, {"service": "segue.v1.RecommendationService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.02s",
                "maxBackoff": "0.2s",
                "backoffMultiplier": 2,
                # CANCELLED is what a stopping server makes of a call it has not begun. Asking changes nothing, so
                # asking again is safe.
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
}
"""gRPC service config (grpc_service_config.md); callers in any language can use it."""


def connect(target: str) -> grpc.aio.Channel:
    """A plaintext channel to `target` (`dns:///segue-propensity:50051`); it connects at the first call.

    One channel for a process: calls share its connections. Give every call a timeout; it is the server's deadline too.
    """
    return grpc.aio.insecure_channel(target, options=[("grpc.service_config", json.dumps(SERVICE_CONFIG))])
