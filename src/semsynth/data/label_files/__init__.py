"""Label files as people have them, in the forms of many tools: ids, names, colours."""
