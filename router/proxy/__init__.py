"""The listener and the hot path: HTTP/1.1 from a caller to a replica and back."""
