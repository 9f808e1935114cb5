"""Pure measurement: bytes and their arrival times in, deltas, marks and figures out.

Nothing in this package reads a clock, a socket, a file, a setting or a database; it imports the standard library and
orjson only. The same code therefore runs under asyncio in the web app and under gevent in Locust.
"""
