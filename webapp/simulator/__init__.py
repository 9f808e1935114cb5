"""A mock inference server whose speed follows published figures and whose words are prepared.

`profile` and `machine` are pure; `pacing` owns the clock; `server` owns HTTP.
"""
