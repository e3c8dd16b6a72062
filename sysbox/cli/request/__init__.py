"""From the values of a parser to the specification of a container."""
