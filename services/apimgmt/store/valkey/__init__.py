"""The store on a Valkey or Redis server, for many replicas.

Works with Valkey 7.2 and later and Redis 7.0 and later, alone or as a cluster. What is settled is as durable as the
server makes it: run it with `appendonly yes`, and `appendfsync everysec` (a crash of the machine may lose a second) or
`always` (nothing), and with `maxmemory-policy noeviction`: counters that are evicted are quotas that are exceeded.
"""

from services.apimgmt.store.valkey.store import ValkeyStore

__all__ = ["ValkeyStore"]
