"""Values on their way to the store and back: the serializer, exceptions as payloads, lengths of time."""
