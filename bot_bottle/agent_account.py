"""Who the agent is inside every bottle of every backend, and where it works."""

AGENT_USER = "agent"
AGENT_UID = 1000
AGENT_HOME = "/home/agent"
AGENT_WORKSPACE = "/home/agent/workspace"
