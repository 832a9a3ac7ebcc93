"""How an agent asks for more, and how a human answers."""
