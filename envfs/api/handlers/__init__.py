"""From the members of a request to a call of the engine, and from what it returns to the members of the answer."""
