"""Recommendation over gRPC and HTTP."""
