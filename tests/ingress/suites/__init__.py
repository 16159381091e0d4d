"""Suites and clients that others wrote, each against the same origin directly and through ingress."""
