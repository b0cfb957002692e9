"""Framework adapters: AgentScope 1.x, AgentScope 2.x, plain text or canonical events become a turn's events."""
