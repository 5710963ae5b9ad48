"""Scoring images that others send: an HTTP service, and a web app for one's own machine.

``decoding`` (bytes to pixels, in processes that may be killed) → ``engine`` (batches for the model) →
``http`` (the service) or ``app`` (the page, drawn by ``cards``) → ``server`` (connections, time limits).
"""
