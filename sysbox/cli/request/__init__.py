"""From a parser's values to what is asked of a container."""
