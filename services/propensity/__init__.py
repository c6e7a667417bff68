"""Propensity over gRPC and HTTP."""
