"""``skerry relay``: hands on WireGuard's packets to runs that nobody can call, and can't read them."""
