"""Sessions that live on without a terminal: held by their launcher, shown on the operator's when wanted."""
