"""Hosts: each turns a platform's event into `Runtime.sweep`, and defines no semantics of its own."""
