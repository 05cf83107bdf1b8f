"""Which mask belongs to which image in folders of any names, and what the masks hold."""
