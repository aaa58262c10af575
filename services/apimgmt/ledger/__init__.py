"""The usage ledger: one record per request whose caller is known."""
