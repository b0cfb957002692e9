"""Framework adapters: what turns AgentScope 1.x, AgentScope 2.x, plain text or canonical events into a turn's events."""
