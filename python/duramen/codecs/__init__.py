"""Codecs for payloads: compression (`codecs.zstd`), encryption (`codecs.aesgcm`). Each is an extra.

They go into a `CodecSerializer`, in the order in which payloads take them into the store.
"""
