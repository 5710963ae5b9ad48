"""One module a data set: ``CARD`` and ``read(root) -> DataFrame`` on the native scale.

Columns: ``id`` str, ``path`` str, ``mos`` float, ``std`` float or NaN, ``split`` ``train|val|test`` or
``""`` as published, ``content`` str, ``distortion`` str or ``""``, ``level`` int (0 = unknown); more are
free.
"""
