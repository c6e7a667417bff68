"""Behavioural features: pure functions of histories and a time, the same lines for training and for serving."""
