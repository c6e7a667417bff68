"""The transport layer: settings, proto <-> domain, the error table, the gRPC server and its clients' channel."""
