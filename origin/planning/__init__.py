"""`encore plan`: what the cache would do with a log of requests, without asking a model.

log.py        lines ──> rows: a time, a tenant, a place, a request, what it took
keying.py     rows ──> asked: the real keys under each normalisation profile
kv.py, l1.py  what lies at the edge and at the origin, a few integers a key
replay.py     asked ──> tallies, one for each of the settings that stand side by side
semantic.py   the real matcher, for settings that match by meaning
report.py     tallies ──> shares, money, advice
generate.py   logs made up, where there is none yet
"""
