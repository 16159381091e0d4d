"""Raw requests through ingress: each one canonical at the origin, or refused."""
