"""What each program needs, given to backends as one :class:`AgentProvisionPlan`."""
