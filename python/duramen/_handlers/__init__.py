"""What authors of workflows write with: definitions of workflows and steps, and the context of a handler."""
