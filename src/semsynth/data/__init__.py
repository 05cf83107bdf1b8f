"""Labels, the preparation of data sets, and their reading; nothing here knows networks.

The modules of this folder are the prepared data set: its labels, its files, its batches. How raw
data become one is in ``prepare``, and below that in ``sources``, ``pairing``, ``annotations``,
``raw``, ``label_files`` and ``image_files``.
"""
