"""Where the first weights come from."""
