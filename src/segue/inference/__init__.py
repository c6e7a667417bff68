"""Model bundles and scorers: what every transport calls. No grpc, bentoml, feast or torch."""
