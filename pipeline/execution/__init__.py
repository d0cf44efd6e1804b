"""A plan executed: strips of blocks, by threads or the workers of a cluster; what is done is kept in a ledger."""
