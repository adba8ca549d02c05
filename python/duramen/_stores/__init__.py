"""How a store is reached: its URL, the drivers of connections that users bring, stores written in Python."""
