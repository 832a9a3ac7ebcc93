"""What the operator declared: schema, loading and the effective bottle."""
