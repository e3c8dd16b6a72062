"""docker's shapes and words, for the command line and an API; nothing here prints."""
