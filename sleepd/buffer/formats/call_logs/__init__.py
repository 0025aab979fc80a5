"""Logs of calls to a model: what stood in the request, and what came."""
