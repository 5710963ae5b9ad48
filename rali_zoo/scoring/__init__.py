"""Scoring many images: where they come from, decoding, the model, and a table that survives being killed.

``sources`` (folders, globs, lists, tables, tar shards) → ``sink`` (the frozen list, cut into parts) →
``pipeline`` (``decode`` and ``preprocess`` in threads, then the scorer) or ``ray`` (the same on a cluster) →
``sink`` (parts, then one table). What each kind of bad input gives is said in ``docs/scoring.md``.
"""
