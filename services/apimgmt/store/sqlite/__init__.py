"""The embedded store: one SQLite file, shared by any number of processes of one host.

Three connections of their own: requests (`hot.py`, on the event loop), management and background writes, reading (a
thread each, and one more for keys, which must not queue behind a long sum). All write transactions are short, so that
nobody waits long for SQLite's one lock.
"""

from services.apimgmt.store.sqlite.store import SqliteStore as SqliteStore
