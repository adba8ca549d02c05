"""The durable calls of a handler's context, a file for each topic; `Context` puts them together."""
