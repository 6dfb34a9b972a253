"""`encore plan`: what the cache would do with a log of requests, without asking a model.

log.py         a line ──> a row: a time, a tenant, a place, a request, what it took
keying.py      a row ──> what it asks: the real keys under each normalisation profile
reading.py     all of them in the order of time, keyed by several processes
kv.py, l1.py   what lies at the edge and at the origin, a few integers a key (places.py)
replay.py      what is asked ──> a tally (tally.py) for each of the settings, side by side
semantic.py    the real matcher, for settings that match by meaning
report.py      tallies ──> shares, money, advice; tables.py and plots.py show them
generate.py    logs made up, where there is none yet
"""
